"""Text from files: the standard library's, or one's own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deq_jax.tasks.text.config import DataConfig
from deq_jax.training.errors import UserError

_TEST_SHARE = 0.1
_NO_SOURCE = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "pydoc_data"})
"""Folders of the standard library that hold something else than its own programs."""


class File(NamedTuple):
    """A file, and what is in it."""

    name: str
    content: bytes


Splits = dict[str, list[File]]


def read(data: DataConfig) -> Splits:
    """The files of the training and the test split, of which none is empty.

    Raises:
        UserError: there is no such file or folder, it cannot be read, or nothing is in it.
    """
    if data.source is None:
        return _apart(_files(Path(os.__file__).parent, "*.py", _NO_SOURCE), data.split_seed)
    path = Path(data.source)
    try:
        if path.is_file():
            return _cut(File(str(path), path.read_bytes()))
        if not path.is_dir():
            raise UserError(f"--data.source {path} does not exist; name a text file, or a folder of such files.")
        if (path / "train").is_dir() and (path / "test").is_dir():
            splits = {split: _files(path / split) for split in ("train", "test")}
        else:
            splits = _apart(_files(path), data.split_seed)
    except OSError as error:
        raise UserError(f"--data.source {path} cannot be read: {error}.") from error
    for split, files in splits.items():
        if not files:
            raise UserError(f"--data.source {path} holds no text to {split} on: its files are empty, or too few.")
    return splits


def _files(folder: Path, pattern: str = "*", without: frozenset[str] = frozenset()) -> list[File]:
    """All files below a folder that hold something, but hidden ones, in the order of their names."""

    def found() -> Iterator[File]:
        for path in folder.rglob(pattern):
            name = path.relative_to(folder)
            is_hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
            if path.is_file() and not is_hidden and not without.intersection(name.parts):
                yield File(name.as_posix(), path.read_bytes())

    return sorted(file for file in found() if file.content)


def _apart(files: list[File], seed: int) -> Splits:
    """At least a tenth of the text, of files drawn at random, is tested on; the other files are trained on."""
    order = np.random.default_rng(seed).permutation(len(files))
    sizes = np.cumsum([len(files[number].content) for number in order])
    wanted = int(np.searchsorted(sizes, _TEST_SHARE * sizes[-1])) + 1 if files else 0
    test = sorted(order[: min(wanted, len(files) - 1)]) if files else []
    train = [number for number in range(len(files)) if number not in set(test)]
    return {"train": [files[number] for number in train], "test": [files[number] for number in test]}


def _cut(file: File) -> Splits:
    """Of one file the last tenth is tested on, from the beginning of a line where there is one near."""
    if not file.content:
        raise UserError(f"{file.name} is empty; there is nothing to learn from it.")
    edge = round((1 - _TEST_SHARE) * len(file.content))
    line = file.content.find(b"\n", edge) + 1
    if 0 < line < edge + len(file.content) // 20:
        edge = line
    while edge < len(file.content) and file.content[edge] & 0xC0 == 0x80:  # within a character of UTF-8
        edge += 1
    return {"train": [file._replace(content=file.content[:edge])], "test": [file._replace(content=file.content[edge:])]}
