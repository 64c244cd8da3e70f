"""An adjoint in less memory: the cell's linearisation is made anew wherever it is needed, and not kept."""

import functools
from collections.abc import Callable

from jaxtyping import PyTree

from deq_jax.gradients.adjoint import Adjoint, Transposed
from deq_jax.gradients.implicit_function import check_adjoint
from deq_jax.solution import Solution


def recomputed(adjoint: Adjoint) -> Adjoint:
    """``adjoint``, with every vector-Jacobian product evaluating ``f`` at the equilibrium again.

    A vector-Jacobian product needs what ``f`` computes on the way, such as the states of all layers of a cell. A
    backward solve keeps that from its beginning to its end, for the whole batch; here it is dropped after each
    product, which then costs one evaluation of ``f`` more. The gradient is the same. Worth it for large cells whose
    inner arrays outweigh the solver's: a compiled program's ``memory_analysis()`` tells. What depends on arguments
    and not on the state the compiler may still compute once and keep.

    Args:
        adjoint: a way of meeting the adjoint equation: [`deq_jax.implicit`][], [`deq_jax.krylov`][],
            [`deq_jax.phantom`][], or one of them in [`deq_jax.or_nan`][]. That of
            [`deq_jax.monotone_fixed_point`][] needs no linearisation, and stays as it is.

    Returns:
        An adjoint, to hand to [`deq_jax.fixed_point`][].

    Raises:
        TypeError: ``adjoint`` is no adjoint.

    Examples:
        >>> import jax, jax.numpy as jnp, deq_jax
        >>> adjoint = recomputed(deq_jax.implicit(deq_jax.anderson))
        >>> def total(x):
        ...     return deq_jax.fixed_point(lambda z, x: 0.5 * z + x, jnp.zeros((1, 1)), x, adjoint=adjoint).value.sum()
        >>> print(f"{jax.grad(total)(jnp.ones((1, 1)))[0, 0]:.2f}")
        2.00

    Source: Chen et al., "Training deep nets with sublinear memory cost", 2016, for one layer.
    """

    @functools.wraps(check_adjoint(adjoint))
    def solve(transposed: Transposed, y: PyTree, fixed_point: Callable[..., Solution]) -> Solution:
        return adjoint(transposed, y, fixed_point)

    solve.is_recomputed = True  # type: ignore[attr-defined]  # for fixed_point, which linearises
    return solve
