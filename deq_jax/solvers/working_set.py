"""The samples that a loop evaluates: the whole batch, until half of it is finished, and then the others in groups.

A group is a few samples whose residuals are alike, so that they finish at about the same time. One after the other
goes through one loop, the same program for all of them, from where the batch has left it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import export, lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from deq_jax.trees import Batch, Matrices
from deq_jax.varying import varying_like

GROUPS = 8
"""Groups that a whole batch would fall into."""
NARROWEST = 4
"""Samples in a group at least: fewer would save less than another loop costs."""


def group_width(batch: Batch) -> int | None:
    """How many samples a group has; None where the batch is too small for groups, or of any size."""
    if export.is_symbolic_dim(batch):
        return None
    width = max(batch // GROUPS, NARROWEST)
    return width if 2 * width <= batch else None


def in_groups[End](
    run: Callable[[Int[Array, " width"]], End],
    end: End,
    axes: End,
    is_left: Bool[Array, " batch"],
    residual: Float[Array, " batch"],
    width: int,
) -> End:
    """``end``, with that of the samples that are left put in, group by group, the largest residuals first."""
    order = jnp.argsort(jnp.where(is_left, -residual, jnp.inf))
    # The last group is filled up with a sample that is finished.
    order = jnp.concatenate([order, jnp.broadcast_to(order[-1:], (-order.shape[0] % width,))])

    def more(carry: tuple[Array, End]) -> Bool[Array, ""]:
        return carry[0] * width < jnp.sum(is_left)

    def next_group(carry: tuple[Array, End]) -> tuple[Array, End]:
        i, end = carry
        rows = lax.dynamic_slice_in_dim(order, i * width, width)
        return i + 1, _with_rows(end, run(rows), axes, rows)

    return lax.while_loop(more, next_group, (jnp.int32(0), varying_like(end, order)))[1]


def batch_axes(make: Callable[[Matrices], PyTree], z0: Matrices) -> PyTree:
    """Where each array that ``make(z0)`` makes has its batch axis; −1 where it has none, and samples share it."""

    def shapes(batch: int) -> PyTree:
        states = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), z0)
        return jax.eval_shape(make, states)

    def axis(two: Any, three: Any) -> int:
        return next((i for i, sizes in enumerate(zip(two.shape, three.shape, strict=True)) if sizes == (2, 3)), -1)

    return jax.tree.map(axis, shapes(2), shapes(3))


def rows_at(tree: PyTree, axes: PyTree, rows: Int[Array, " width"]) -> PyTree:
    """The part of each array that belongs to these samples."""
    return jax.tree.map(lambda leaf, axis: leaf if axis < 0 else jnp.take(leaf, rows, axis=axis), tree, axes)


def _with_rows(tree: PyTree, part: PyTree, axes: PyTree, rows: Int[Array, " width"]) -> PyTree:
    def put(leaf: Array, new: Array, axis: int) -> Array:
        return leaf.at[(slice(None),) * axis + (rows,)].set(new)

    return jax.tree.map(put, tree, part, axes)
