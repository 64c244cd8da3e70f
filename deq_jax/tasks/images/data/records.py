"""Encoded images, read one by one: into memory where they fit, and as a stream where they do not."""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from deq_jax.tasks.images.data.dataset import Dataset, Examples, Streamed
from deq_jax.tasks.images.data.form import Form, Pixels, UnusableError, decoded
from deq_jax.tasks.images.data.stream import Stream
from deq_jax.tasks.images.groups import DataConfig
from deq_jax.training.errors import UserError

AUTO_BYTES = 2**31
"""What all pixels of a split may take in memory where `in_memory` is auto."""


class Records(NamedTuple):
    """Encoded images of one split; the functions are given the number of one, and called by several threads."""

    size: int
    """How many there are."""
    name: Callable[[int], str]
    """What to call one, in an error."""
    read: Callable[[int], tuple[bytes, int]]
    """Its bytes and its label."""
    check: Callable[[int, Form], None]
    """Raises UnusableError where it can be seen at little cost that it will be no image of this form."""
    encoding: str | None
    files: str | None = None
    """A digest of the names and sizes."""


def dataset_of(records: Records, form: Form, classes: tuple[str, ...], how: DataConfig) -> Dataset:
    """The split in memory, or as a stream, as the settings say and as it fits.

    Raises:
        UserError: some are no images, and are not to be skipped, or none is left.
    """
    workers = how.workers or usable_cores()
    size = records.size * form.height * form.width * form.channels
    in_memory = how.in_memory == "yes" or (how.in_memory == "auto" and size <= AUTO_BYTES)

    def pixels(row: int) -> tuple[Pixels, int]:
        encoded, label = records.read(row)
        return decoded(encoded, form), label

    def tried(row: int) -> tuple[Pixels, int] | UnusableError | None:
        try:
            return pixels(row) if in_memory else records.check(row, form)
        except UnusableError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(tried, range(records.size)))
    bad = {row: f"{records.name(row)} {error}" for row, error in enumerate(found) if isinstance(error, UnusableError)}
    _require_usable(list(bad.values()), how, len(found))
    kept = [row for row in range(len(found)) if row not in bad]
    examples: Examples | Streamed
    if in_memory:
        # One by one into their place, so that no more than one copy is ever held.
        images, labels = np.empty((len(kept), *form.shape), np.uint8), np.empty(len(kept), np.int32)
        for place, row in enumerate(kept):
            sample, found[row] = found[row], None
            assert isinstance(sample, tuple)
            images[place], labels[place] = sample
        examples = Examples(images, labels)
    else:
        examples = Stream(lambda place: _later(pixels, records.name, kept[place]), len(kept), workers)
    return Dataset(examples, classes, form.shape, records.encoding, records.files)


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_usable(bad: Sequence[str], how: DataConfig, of: int) -> None:
    """Refuses what is no image, or says on stderr that it is skipped, as the settings have it."""
    if not bad:
        return
    said = "; ".join(bad[:2]) + (f"; and {len(bad) - 2:,} more" if len(bad) > 2 else "")
    if how.bad_files == "refuse":
        raise UserError(f"{said}.\nRepair or remove what cannot be used, or say --data.bad-files skip.")
    if len(bad) == of:
        raise UserError(f"{said}: nothing is left of {of:,} files. Give images.")
    print(f"Skipped {len(bad):,} of {of:,} files: {said}.", file=sys.stderr)


def _later(pixels: Callable[[int], tuple[Pixels, int]], name: Callable[[int], str], row: int) -> tuple[Pixels, int]:
    """What is read in the midst of a run, which an image that only now turns out to be none ends."""
    try:
        return pixels(row)
    except UnusableError as error:
        raise UserError(
            f"{name(row)} {error}. The run's checkpoints stay; put the file right, and start it again to go on."
        ) from error
