"""Encoded images, read one by one: into memory where they fit, and as a stream where they do not."""

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
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

_MOST_AT_ONCE = 512


class Records(NamedTuple):
    """Encoded images of one split, each known by its number; the functions are called by several threads."""

    size: int
    """How many there are."""
    name: Callable[[int], str]
    """What to call one, in an error."""
    read: Callable[[Sequence[int]], Iterable[tuple[bytes | UnusableError, int]]]
    """The bytes of some, or why there are none, with their labels."""
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

    images = np.empty((records.size if in_memory else 0, *form.shape), np.uint8)
    labels = np.empty(len(images), np.int32)
    bad: dict[int, str] = {}

    def look(rows: range) -> None:
        encoded = records.read(rows) if in_memory else ()
        for row, sample in itertools.zip_longest(rows, encoded):
            try:
                if in_memory:
                    images[row], labels[row] = decoded(sample[0], form), sample[1]
                else:
                    records.check(row, form)
            except UnusableError as error:
                bad[row] = f"{records.name(row)} {error}"

    # Many at a time: of small images handing one over would cost as much as decoding it.
    share = min(-(-records.size // (4 * workers)), _MOST_AT_ONCE)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(look, (range(records.size)[start : start + share] for start in range(0, records.size, share))))
    _require_usable([bad[row] for row in sorted(bad)], how, records.size)
    kept = np.array([row for row in range(records.size) if row not in bad])
    examples: Examples | Streamed
    if in_memory:
        examples = Examples(images[kept], labels[kept]) if bad else Examples(images, labels)
    else:
        examples = Stream(lambda places: _some(records, kept[places].tolist(), form), len(kept), workers)
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


def _some(records: Records, rows: Sequence[int], form: Form) -> list[tuple[Pixels, int]]:
    """What is read in the midst of a run, which an image that only now turns out to be none ends."""
    samples = []
    for row, (encoded, label) in zip(rows, records.read(rows), strict=True):
        try:
            samples.append((decoded(encoded, form), label))
        except UnusableError as error:
            raise UserError(
                f"{records.name(row)} {error}. The run's checkpoints stay; put the file right, and start it again to "
                "go on."
            ) from error
    return samples
