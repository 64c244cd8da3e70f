"""What belongs to samples, told from what they share: only so can a function be evaluated for some samples of a batch.

A function that can has an attribute ``for_rows``: ``f.for_rows(rows)`` is ``f`` for the samples of these numbers alone,
an array of integers ``[width]``. The loop that solvers share asks for it, and evaluates the whole batch without it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

from deq_jax.settings import whole_number
from deq_jax.states.trees import Batch, Rows


@jax.tree_util.register_pytree_node_class
class PerSample:
    """An argument whose arrays have the batch as their leading axis; made by [`deq_jax.per_sample`][]."""

    def __init__(self, value: PyTree, *, width: int | None = None, is_certain: bool = True):
        self.value = value
        self.width = width
        self.is_certain = is_certain

    def tree_flatten(self) -> tuple[tuple[PyTree], tuple[int | None, bool]]:
        """For JAX: the value, and what is said of it."""
        return (self.value,), (self.width, self.is_certain)

    @classmethod
    def tree_unflatten(cls, said: tuple[int | None, bool], children: tuple[PyTree]) -> "PerSample":
        """For JAX."""
        return cls(*children, width=said[0], is_certain=said[1])


def per_sample(x: PyTree, *, width: int | None = None) -> PerSample:
    """Say of an argument of [`deq_jax.fixed_point`][] that sample ``i`` of the batch depends on its row ``i`` alone.

    ``f`` gets ``x`` itself. Samples that have converged are then evaluated no more: ``f`` is called with fewer samples,
    and with their rows of ``x``. Statuses and evaluations stay the same, values up to rounding.

    With a ``width`` a batch may be as long as a data set: so many samples begin, and as some finish others take their
    places, in one loop. It costs the sum of what samples need, and ``z0``, ``x`` and the solution aside, the memory of
    ``width`` samples. The backward pass takes the batch as a whole.

    Args:
        x: a pytree of arrays ``[batch, ...]``, such as the injection.
        width: samples that are evaluated at a time at most; None for the whole batch. A solver whose rule counts
            evaluations, or remembers anything for all samples at once, takes the whole batch all the same.

    Returns:
        ``x``, marked; to hand to [`deq_jax.fixed_point`][] or [`deq_jax.fixed_point_jvp`][] in its place.

    Raises:
        ValueError: ``width`` is not positive; from what ``x`` is handed to, where an array of it has not the batch as
            its leading axis, or two arguments are of different ``width``.
        TypeError: ``width`` is no whole number; from there, where ``f`` cannot be evaluated for some samples alone, as
            it closes over something that has a row for each.

    Examples:
        >>> import jax.numpy as jnp, deq_jax
        >>> x, w = jnp.ones((8, 3)), 0.5 * jnp.eye(3)
        >>> sol = deq_jax.fixed_point(lambda z, x, w: jnp.tanh(z @ w + x), jnp.zeros((8, 3)), per_sample(x), w)
        >>> sol.value.shape
        (8, 3)

    Source: this library's.
    """
    return PerSample(x, width=None if width is None else whole_number("width", width))


def where_it_fits(x: PyTree, z0: PyTree, width: int | None = None) -> PyTree:
    """``x`` marked, if all its arrays have the leading axis that those of ``z0`` have, and as it is otherwise."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves((x, z0))}
    return PerSample(x, width=width, is_certain=False) if len(lengths) == 1 and lengths != {()} else x


def unmarked(args: tuple) -> tuple:
    """The arguments that ``f`` gets."""
    return tuple(arg.value if isinstance(arg, PerSample) else arg for arg in args)


def width_of(args: tuple) -> int | None:
    """How many samples may be evaluated at a time, as the marked arguments say; None: all of them."""
    said = {arg.width for arg in args if isinstance(arg, PerSample) and arg.width is not None}
    if len(said) > 1:
        raise ValueError(
            f"per_sample says of one argument that at most {min(said)} samples are evaluated at a time, and of another "
            f"that {max(said)} are. Give both the same width, or one of them none."
        )
    return next(iter(said), None)


def check_marks(args: tuple, batch: Batch | None) -> None:
    """Raise a ValueError unless what is marked has the batch as its leading axis; None: there is no batch."""
    for position, arg in enumerate(args):
        if batch is None and isinstance(arg, PerSample):
            raise ValueError(
                f"args[{position}] is per_sample, but with batched=False there is one problem and no samples. "
                "Give it as it is."
            )
        for path, leaf in jax.tree.leaves_with_path(arg.value) if isinstance(arg, PerSample) else []:
            if jnp.shape(leaf)[:1] != (batch,):
                raise ValueError(
                    f"per_sample says that args[{position}] has a row for each of {batch} samples, but "
                    f"args[{position}]{jax.tree_util.keystr(path)} is of shape {list(jnp.shape(leaf))}. Mark only what "
                    "has the batch as its leading axis, and give what samples share as an argument of its own."
                )


def rows_of(args: tuple, marks: tuple[bool, ...], rows: Rows) -> tuple:
    """The arguments for some samples: the rows of those that are marked, and all of the others."""
    return tuple(rows_at(arg, rows) if mark else arg for arg, mark in zip(args, marks, strict=True))


class Narrowable:
    """A function of all samples that can be had for some of them; ``width`` at a time at most, None for all."""

    def __init__(
        self, whole: Callable[..., Any], for_rows: Callable[[Rows], Callable[..., Any]], *, width: int | None = None
    ):
        self.whole = whole
        self.for_rows = for_rows
        self.width = width

    def __call__(self, *args: Any) -> Any:
        """Of all samples."""
        return self.whole(*args)


def transposed_at(
    f: Callable[[PyTree], PyTree], z: PyTree, *, is_recomputed: bool = False
) -> Callable[[PyTree], PyTree]:
    """The vector-Jacobian product ``g ↦ (∂f/∂z)ᵀ g`` at ``z``; for some samples, too, where ``f`` is.

    Where it ``is_recomputed``, each product evaluates ``f`` itself, and nothing is kept from one to the next.
    """

    def at(f: Callable[[PyTree], PyTree], z: PyTree) -> Callable[[PyTree], PyTree]:
        if is_recomputed:
            return functools.partial(_transposed_anew, f, z)
        _, transposed = jax.vjp(f, z)
        return lambda g: transposed(g)[0]

    return _at(at, f, z)


def pushed_at(f: Callable[[PyTree], PyTree], z: PyTree) -> Callable[[PyTree], PyTree]:
    """The Jacobian-vector product ``t ↦ (∂f/∂z) t`` at ``z``; for some samples, too, where ``f`` is."""
    return _at(lambda f, z: lambda t: jax.jvp(f, (z,), (t,))[1], f, z)


def _at(
    linear_map: Callable[[Callable[[PyTree], PyTree], PyTree], Callable[[PyTree], PyTree]],
    f: Callable[[PyTree], PyTree],
    z: PyTree,
) -> Callable[[PyTree], PyTree]:
    whole = linear_map(f, z)
    if not isinstance(f, Narrowable):
        return whole
    return Narrowable(whole, lambda rows: linear_map(f.for_rows(rows), rows_at(z, rows)))


def rows_at(tree: PyTree, rows: Rows) -> PyTree:
    """Of arrays whose leading axis is the batch, the rows of some samples."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], tree)


def _transposed_anew(f: Callable[[PyTree], PyTree], z: PyTree, g: PyTree) -> PyTree:
    # Tied to g: left to itself, the compiler takes out of a loop what is the same in all of its iterations.
    z, g = lax.optimization_barrier((z, g))
    _, transposed = jax.vjp(f, z)
    return transposed(g)[0]
