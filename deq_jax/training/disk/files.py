"""A run's files: written whole or not at all, and never thrown away unasked."""

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath

from deq_jax.training.errors import UserError, reason

_marks: dict[Path, tuple[Path, os.stat_result]] = {}
"""Of the folders that are this process's own, a file in each, and what the system knew it by at first."""


@contextmanager
def owned(run: Path, mark: Path, known: os.stat_result) -> Iterator[None]:
    """A run's folder is this process's own for as long as the file `mark` in it is the one that was `known`."""
    _marks[run.absolute()] = mark.absolute(), known
    try:
        yield
    finally:
        del _marks[run.absolute()]


def require_own(run: Path) -> None:
    """Raises UserError where the folder was this process's own, and has been removed or replaced since."""
    mark, known = _marks.get(run.absolute(), (None, None))
    if mark is None or known is None:
        return
    try:
        is_same = os.path.samestat(mark.stat(), known)
    except FileNotFoundError:
        is_same = False
    if not is_same:
        raise UserError(
            f"{run} is no longer the folder of this run: it, or {mark.name} in it, has been removed or replaced.\n"
            f"Nothing more is written, since another run may have begun there. Start this one again to go on with what "
            f"is there."
        )


@contextmanager
def writing_to(run: Path) -> Iterator[None]:
    """What keeps a run's folder from being written to, in the user's words; around whatever a run writes.

    Raises:
        UserError: for any OSError within, and where it is no longer the run's own, before anything is written.
    """
    require_own(run)
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = f"{error.strerror}. Free space; started again, it goes on."
        else:
            problem = f"{reason(error)}."
        raise UserError(f"cannot write to {run}: {problem}") from error


def write_atomically(path: Path | epath.Path, content: str | bytes) -> None:
    """Writes a file such that a reader, a crash, or a loss of power sees either the old content or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def sync(path: Path | epath.Path) -> None:
    """Brings a file, or the names in a folder, to the disk; what is not of this machine takes care of itself."""
    if "://" in str(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system knows how
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_aside[P: (Path, epath.Path)](path: P, pattern: str) -> P:
    """Renames to the first name that is free, `pattern` with 0, 1, ... in the place of its {}. Returns the new path."""
    names = (path.with_name(pattern.format(k)) for k in itertools.count())
    target = next(name for name in names if not name.exists())
    return path.rename(target)
