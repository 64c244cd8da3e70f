"""The seal of a checkpoint: what it is of, and by what digests it is known to be as it was written.

Orbax does not notice a byte that changed on disk, nor does it read a torn file quietly. The seal carries the digest of
every file, and one of itself: what it says is believed only where it vouches for itself, too.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
from etils import epath

from deq_jax.training.disk.files import sync, write_atomically
from deq_jax.training.steps.step import TrainState

FILE = "seal.json"
_OWN = "seal"
STATE = "default"
"""Orbax's folder of the state in a checkpoint."""


class Seal(NamedTuple):
    """What a checkpoint is of."""

    step: int
    seconds: float
    """Seconds of training that led to it."""
    form: dict[str, str]
    """See `form_of`."""
    files: dict[str, str]
    """SHA-256 of every file of the state, by its name."""


def form_of(state: TrainState) -> dict[str, str]:
    """Type and shape of every array, by its place in the state."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): str(jax.typeof(leaf)) for path, leaf in leaves}


def seal(folder: epath.Path, step: int, seconds: float, form: dict[str, str]) -> None:
    """Seals a checkpoint whose files are all written, and brings them to the disk."""
    paths = sorted(_files(folder / STATE))
    files = {path.relative_to(folder).as_posix(): _digest(path) for path in paths}
    content = Seal(step, seconds, form, files)._asdict()
    for path in (*paths, *{path.parent for path in paths}):
        sync(path)
    write_atomically(folder / FILE, json.dumps(content | {_OWN: _own(content)}, indent=1))


def read(folder: epath.Path) -> Seal | None:
    """The seal of a checkpoint; None where there is none, or one that is not as it was written."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        own = content.pop(_OWN, None)
        # A run of an older version has no digest of the seal. No flipped bit makes one so: it takes away no key.
        is_older = own is None and content.keys() == set(Seal._fields)
        return Seal(**content) if is_older or own == _own(content) else None
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return None


def is_intact(folder: epath.Path, seal: Seal) -> bool:
    """Whether every file is as it was; what a file manager or a network drive has added does not matter."""
    try:
        return all(_digest(folder / name) == digest for name, digest in seal.files.items())
    except OSError:
        return False


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry)
        else:
            yield entry


def _own(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(path: Path | epath.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
