"""A batch in parts, one after the other, in the memory of one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Key, PyTree

from deq_jax.training.task import Examples

Differentiated = Callable[[PyTree, PyTree, Examples, Int[Array, ""], Key[Array, ""]], tuple[PyTree, PyTree, Any]]
"""(params, batch_stats, examples, draw, key) → (gradient of a mean over the samples, batch_stats, means)."""


def in_parts(differentiated: Differentiated, parts: int) -> Differentiated:
    """The same for a batch in so many equal parts: the mean of their gradients, and of their means.

    That is the gradient of the whole batch, but for rounding and for what a part does otherwise: BatchNorm takes the
    statistics of the part alone, and moves its running averages once for each; dropout and the directions of penalties
    are drawn for each part anew, by ``draw`` and ``key``. Part i has the samples i, i + parts, …, so that each of
    several devices cuts up what it has.
    """
    if parts == 1:
        return differentiated

    def accumulated(
        params: PyTree, batch_stats: PyTree, examples: Examples, draw: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[PyTree, PyTree, Any]:
        def add(carry: tuple[PyTree, PyTree], part: tuple[Array, Examples]) -> tuple[tuple[PyTree, PyTree], Any]:
            (sums, batch_stats), (i, rows) = carry, part
            own = draw * parts + i, jax.random.fold_in(key, i)
            grads, batch_stats, means = differentiated(params, batch_stats, rows, *own)
            return (jax.tree.map(jnp.add, sums, grads), batch_stats), means

        rows = jax.tree.map(lambda leaf: leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1), examples)
        nothing = jax.tree.map(jnp.zeros_like, params), batch_stats
        (sums, batch_stats), means = lax.scan(add, nothing, (jnp.arange(parts), rows))
        return jax.tree.map(lambda leaf: leaf / parts, sums), batch_stats, jax.tree.map(_mean, means)

    return accumulated


def _mean(values: Array) -> Array:
    """Over the parts; of what is true or false, whether it is true of all."""
    return values.all(0) if values.dtype == bool else values.mean(0)
