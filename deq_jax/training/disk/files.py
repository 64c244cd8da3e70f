"""A run's files: written whole or not at all, and never thrown away unasked."""

import errno
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deq_jax.training.errors import UserError, reason


@contextmanager
def writing_to(run: Path) -> Iterator[None]:
    """What keeps a run's folder from being written to, in the user's words.

    Raises:
        UserError: for any OSError within.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = f"{error.strerror}. Free space; started again, it goes on."
        else:
            problem = f"{reason(error)}."
        raise UserError(f"cannot write to {run}: {problem}") from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file such that a reader, or a crash, sees either the old content or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def set_aside(path: Path, pattern: str) -> Path:
    """Renames to the first name that is free, `pattern` with 0, 1, ... in the place of its {}. Returns the new path."""
    names = (path.with_name(pattern.format(k)) for k in itertools.count())
    target = next(name for name in names if not name.exists())
    return path.rename(target)
