"""The samples that a loop evaluates: fewer as they finish.

A batch is evaluated as a whole until half of it is finished, and then the others in groups. A group is a few samples
whose residuals are alike, so that they finish at about the same time; one after the other goes through one loop, the
same program for all of them, from where the batch has left it. Where the batch is wider than it may be at a time, the
first so many samples begin, and whenever some have finished, others take their places.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export, lax
from jax.extend.core import Literal
from jaxtyping import Array, Bool, Float, PyTree

from deq_jax.states.trees import Batch, Matrices, Rows, batch_size
from deq_jax.states.varying import varying_like

GROUPS = 8
"""Groups that a whole batch would fall into; one place in so many of a stream must be free to be refilled."""
NARROWEST = 4
"""Samples in a group at least: fewer would save less than another loop costs."""


class Loop(NamedTuple):
    """A loop over samples, as what narrows it needs to know it."""

    begin: Callable[[Matrices], Any]
    """``begin(z0) -> carry``: every sample active, nothing evaluated."""
    run: Callable[[Any, Rows | None, int], Any]
    """``run(carry, rows, room) -> carry``: until at most ``room`` samples of these rows are active; None: all."""
    ended: Callable[[Any], Any]
    """``ended(carry)``: what is asked of a sample in the end."""


def group_width(batch: Batch) -> int | None:
    """How many samples a group has; None where the batch is too small for groups, or of any size."""
    if export.is_symbolic_dim(batch):
        return None
    width = max(batch // GROUPS, NARROWEST)
    return width if 2 * width <= batch else None


def widths(batch: Batch, width: int | None) -> list[int]:
    """How many samples at a time ``f`` may be evaluated for, all of them aside; the adjoint solve is no stream."""
    if not _streams(batch, width):
        width = None
    sizes = [width, width and group_width(width), group_width(batch)]
    return list(dict.fromkeys(size for size in sizes if size is not None))


def _streams(batch: Batch, width: int | None) -> bool:
    return width is not None and not export.is_symbolic_dim(batch) and width < batch


def narrowing(loop: Loop, z0: Matrices, width: int | None) -> Any:
    """What has ended: all samples of the batch ``z0``, at most ``width`` of them evaluated at a time; None: all."""
    batch = batch_size(z0)
    axes = batch_axes(loop.begin, z0)
    is_stream = _streams(batch, width)
    working: Any = width if is_stream else batch
    group = group_width(working)
    room = 0 if group is None else working // 2
    if is_stream:
        end, carry, rows = _streamed(loop, z0, axes, working)
        carry = loop.run(carry, rows, room)
        end = _with_rows(end, loop.ended(carry), loop.ended(axes), rows)
    else:
        carry, rows = loop.run(loop.begin(z0), None, room), None
        end = loop.ended(carry)
    if group is None:
        return end

    def run_group(places: Rows) -> tuple[Rows, Any]:
        of_batch = places if rows is None else rows[places]
        return of_batch, loop.ended(loop.run(_rows_at(carry, axes, places), of_batch, 0))

    return _in_groups(run_group, end, loop.ended(axes), carry.active, carry.best_residual, group)


def _streamed(loop: Loop, z0: Matrices, axes: PyTree, width: int) -> tuple[Any, Any, Rows]:
    """Until every sample has begun: what has ended, the loop's carry, and the rows that it is at."""
    batch, ends = batch_size(z0), loop.ended(axes)

    def beginning(rows: Rows) -> Any:
        return loop.begin(jax.tree.map(lambda leaf: leaf[rows], z0))

    def some_wait(carry: tuple) -> Bool[Array, ""]:
        return carry[0] < batch

    def refilled(carry: tuple) -> tuple:
        begun, rows, working, end = carry
        working = loop.run(working, rows, width - max(width // GROUPS, 1))
        end = _with_rows(end, loop.ended(working), ends, rows)
        others = begun - 1 + jnp.cumsum(~working.active)
        is_new = ~working.active & (others < batch)
        rows = jnp.where(is_new, others, rows)
        working = _where(is_new, beginning(rows), working, axes)
        return begun + jnp.sum(is_new), rows, working, end

    rows = jnp.arange(width)
    end = jax.tree.map(
        lambda leaf, axis: jnp.zeros((*leaf.shape[:axis], batch, *leaf.shape[axis + 1 :]), leaf.dtype),
        jax.eval_shape(lambda: loop.ended(beginning(rows))),
        ends,
    )
    begun, rows, end = varying_like((jnp.int32(width), rows, end), z0)
    _, rows, working, end = lax.while_loop(some_wait, refilled, (begun, rows, beginning(rows), end))
    return end, working, rows


def _in_groups[End](
    run: Callable[[Rows], tuple[Rows, End]],
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
        rows, of_group = run(lax.dynamic_slice_in_dim(order, i * width, width))
        return i + 1, _with_rows(end, of_group, axes, rows)

    return lax.while_loop(more, next_group, (jnp.int32(0), varying_like(end, order)))[1]


def begins_at_any_time(rule: Any, z0: Matrices) -> bool:
    """Whether a rule serves a sample that begins later than others as it serves one that begins with them.

    So it is where all that it remembers belongs to samples, and it can forget or does not look at ``k``.
    """
    if any(axis < 0 for axis in jax.tree.leaves(batch_axes(rule.init, z0))):
        return False
    if rule.forget is not None:
        return True
    program = jax.make_jaxpr(rule.update)(z0, z0, rule.init(z0), jnp.int32(0)).jaxpr
    k = program.invars[-1]
    read = [v for equation in program.eqns for v in equation.invars] + list(program.outvars)
    return not any(v is k for v in read if not isinstance(v, Literal))


def batch_axes(make: Callable[[Matrices], PyTree], z0: Matrices) -> PyTree:
    """Where each array that ``make(z0)`` makes has its batch axis; −1 where it has none, and samples share it."""

    def shapes(batch: int) -> PyTree:
        states = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), z0)
        return jax.eval_shape(make, states)

    def axis(two: Any, three: Any) -> int:
        return next((i for i, sizes in enumerate(zip(two.shape, three.shape, strict=True)) if sizes == (2, 3)), -1)

    return jax.tree.map(axis, shapes(2), shapes(3))


def _rows_at(tree: PyTree, axes: PyTree, rows: Rows) -> PyTree:
    """The part of each array that belongs to these samples."""
    return jax.tree.map(lambda leaf, axis: leaf if axis < 0 else jnp.take(leaf, rows, axis=axis), tree, axes)


def _with_rows(tree: PyTree, part: PyTree, axes: PyTree, rows: Rows) -> PyTree:
    def put(leaf: Array, new: Array, axis: int) -> Array:
        return leaf.at[(slice(None),) * axis + (rows,)].set(new)

    return jax.tree.map(put, tree, part, axes)


def _where(is_new: Bool[Array, " width"], new: PyTree, old: PyTree, axes: PyTree) -> PyTree:
    def pick(a: Array, b: Array, axis: int) -> Array:
        if axis < 0:
            return b
        return jnp.where(is_new.reshape((-1,) + (1,) * (a.ndim - 1 - axis)), a, b)

    return jax.tree.map(pick, new, old, axes)
