"""The order in which training and evaluation read samples.

The order is stateless: batch k of epoch e is a function of the seed alone, so a resumed run reads what an uninterrupted
one would have read.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int

from deq_jax.training.task import Examples

WHOLE = slice(0, 1, 1)
"""The share of the only process: the first part of one."""

_AHEAD = 2
"""Batches of which a source is told before they are asked for."""
_LONGER = 8
"""An evaluation's batch is this many times as long as one in training at most, as it keeps nothing for a gradient."""


class Batch(NamedTuple):
    """A fixed number of samples. Where mask is False a sample only fills the batch up and does not count."""

    examples: Examples
    mask: Bool[np.ndarray, " batch"]


def count(examples: Examples) -> int:
    """The number of samples."""
    return len(jax.tree.leaves(examples)[0])


def taken(examples: Examples, rows: Int[np.ndarray, " rows"] | slice) -> Examples:
    """The samples of these rows."""
    return jax.tree.map(lambda array: array[rows], examples)


@functools.lru_cache(maxsize=2)  # of a million samples it takes as long as many a step
def epoch_order(seed: int, epoch: int, n: int) -> Int[np.ndarray, " n"]:
    """The permutation of 0 … n − 1 in which epoch `epoch` reads the samples."""
    order = np.random.default_rng((seed, epoch)).permutation(n)
    order.flags.writeable = False
    return order


def train_batch(examples: Examples, seed: int, step: int, batch_size: int, share: slice = WHOLE) -> Examples:
    """The samples of training step `step` (0, 1, …), which is batch k of epoch e with step = e · (n // batch_size) + k.

    Of the batch it reads a process's share alone.

    Each epoch leaves out its last n mod batch_size samples: every batch has one shape, and nothing recompiles. Of a
    source without an end epoch e reads the samples from e · n on.
    """
    n = count(examples)
    is_endless = any(getattr(leaf, "is_endless", False) for leaf in jax.tree.leaves(examples))

    def rows(step: int) -> Int[np.ndarray, " rows"]:
        epoch, k = divmod(step, n // batch_size)
        order = epoch_order(seed, epoch, n)[k * batch_size : (k + 1) * batch_size]
        return _shared(order + epoch * n if is_endless else order, share)

    _expect(examples, (rows(later) for later in range(step, step + 1 + _AHEAD)))
    return taken(examples, rows(step))


def eval_batch_size(n: int, batch_size: int, devices: int = 1) -> int:
    """Samples in each batch of an evaluation of `n`: as few batches as may be, as even as may be, evenly on devices.

    Equilibria are solved as in a training batch, so many at a time: a longer batch only refills the working set for
    longer.
    """
    batches = max(1, -(-n // (_LONGER * batch_size)))
    return max(1, -(-n // (batches * devices))) * devices


def eval_batches(examples: Examples, batch_size: int, share: slice = WHOLE) -> Iterator[Batch]:
    """Every sample exactly once, in order; the last batch is filled up with its own first sample, masked out."""
    n = count(examples)

    def rows(start: int) -> Int[np.ndarray, " rows"]:
        rows = np.arange(start, start + batch_size)
        return _shared(np.where(rows < n, rows, start), share)

    for start in range(0, n, batch_size):
        later = range(start, min(n, start + (1 + _AHEAD) * batch_size), batch_size)
        _expect(examples, map(rows, later))
        yield Batch(taken(examples, rows(start)), _shared(np.arange(start, start + batch_size) < n, share))


def _shared(rows: np.ndarray, share: slice) -> np.ndarray:
    """Of a batch cut into `share.step` equal parts, those from `share.start` to `share.stop`."""
    part = len(rows) // share.step
    return rows[share.start * part : share.stop * part]


def _expect(examples: Examples, batches: Iterable[Int[np.ndarray, " rows"]]) -> None:
    """Tells sources that read ahead of the rows to come."""
    listeners = [leaf.expect for leaf in jax.tree.leaves(examples) if hasattr(leaf, "expect")]
    if listeners:
        for rows in batches:
            for expect in listeners:
                expect(rows)
