"""The order in which training and evaluation read samples that are in memory.

The order is stateless: batch k of epoch e is a function of the seed alone, so a resumed run reads what an uninterrupted
one would have read.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int

from deq_jax.training.task import Examples


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


def epoch_order(seed: int, epoch: int, n: int) -> Int[np.ndarray, " n"]:
    """The permutation of 0 … n − 1 in which epoch `epoch` reads the samples."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def train_batch(examples: Examples, seed: int, step: int, batch_size: int) -> Examples:
    """The samples of training step `step` (0, 1, …), which is batch k of epoch e with step = e · (n // batch_size) + k.

    Each epoch leaves out its last n mod batch_size samples: every batch has one shape, and nothing recompiles.
    """
    n = count(examples)
    epoch, k = divmod(step, n // batch_size)
    return taken(examples, epoch_order(seed, epoch, n)[k * batch_size : (k + 1) * batch_size])


def eval_batches(examples: Examples, batch_size: int) -> Iterator[Batch]:
    """Every sample exactly once, in order; the last batch is filled up with its own first sample, masked out.

    A sample that is there already costs no further evaluation of the equilibrium, which a blank one might.
    """
    n = count(examples)
    for start in range(0, n, batch_size):
        rows = np.arange(start, start + batch_size)
        mask = rows < n
        yield Batch(taken(examples, np.where(mask, rows, start)), mask)
