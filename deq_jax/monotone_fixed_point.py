"""The equilibrium of a monotone map, differentiated by the same splitting that finds it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

from deq_jax.fixed_point import fixed_point
from deq_jax.gradients.adjoint import Adjoint, AdjointReport, Solver, Transposed, implicit
from deq_jax.gradients.implicit_function import check_adjoint, check_solver
from deq_jax.operators import MonotoneMap
from deq_jax.operators.operator import Operator
from deq_jax.solution import Solution
from deq_jax.solvers import peaceman_rachford
from deq_jax.states.per_sample import unmarked


def monotone_fixed_point(
    f: MonotoneMap,
    z0: PyTree,
    *,
    solver: Callable[..., Solution] = peaceman_rachford,
    adjoint: Adjoint | None = None,
    report: AdjointReport | None = None,
) -> Solution:
    r"""Solve ``z = prox(W z + b)``, differentiably in ``W`` and ``b``, both ways by a solver that knows these parts.

    At the equilibrium ``prox`` is the projection ``D`` onto the numbers that it lets pass, so that the adjoint equation
    is a monotone equilibrium problem, too, by the transposed operator and with ``D`` in the place of ``prox``:

    $$g = W^\top D\, g + y \quad\Leftrightarrow\quad g = W^\top u + y, \qquad u = D\,(W^\top u + y).$$

    It has exactly one solution, and the residual that the solver measures and ``report`` tells is that of ``u``.

    Args:
        f: a [`deq_jax.operators.MonotoneMap`][].
        z0: where to start; a pytree of floating-point arrays ``[batch, ...]``.
        solver: a solver that is given ``f`` itself: [`deq_jax.peaceman_rachford`][],
            [`deq_jax.forward_backward`][], or any other.
        adjoint: as in [`deq_jax.fixed_point`][]; None for ``implicit(solver)``. The solver of an ``implicit`` is given
            the MonotoneMap of ``u``.
        report: see [`deq_jax.adjoint_report`][].

    Returns:
        A [`deq_jax.Solution`][], of which only the ``value`` carries gradients.

    Raises:
        TypeError: ``f`` is no MonotoneMap, or what [`deq_jax.fixed_point`][] raises.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from deq_jax.operators import Dense
        >>> def z_star(b):
        ...     f = MonotoneMap(Dense(jnp.array([[-3.0]]), m=4.0), b)
        ...     return monotone_fixed_point(f, jnp.zeros((1, 1))).value.sum()
        >>> print(f"{jax.grad(z_star)(jnp.ones((1, 1)))[0, 0]:.2f}")
        0.25

    Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, theorem 2 and appendix B.
    """
    check_solver("solver", solver)
    held = lax.stop_gradient(f)
    solution = solver(held, lax.stop_gradient(z0))
    adjoint = implicit(solver) if adjoint is None else check_adjoint(adjoint)
    passed = held.argument(lax.stop_gradient(solution.value))
    _, mask = jax.jvp(f.prox, (passed,), (jax.tree.map(jnp.ones_like, passed),))
    return fixed_point(
        lambda z, W, b: f.prox(MonotoneMap(W, b, f.prox).argument(z)),
        solution.value,
        f.W,
        f.b,
        solver=lambda f, z0: solution,
        adjoint=_by_parts(adjoint, held.W, mask),
        report=report,
    )


def _by_parts(adjoint: Adjoint, W: Operator, mask: PyTree, *, is_transposed: bool = True) -> Adjoint:
    """``adjoint``, whose solver, where it has one, is given the equation as a monotone map.

    The equation is ``g = Wᵀ D g + y``, or of the next higher order ``g = D W g + y``.
    """

    def project(z: PyTree) -> PyTree:
        return jax.tree.map(jnp.multiply, mask, z)

    def backward(solver: Solver, y: PyTree) -> Solution:
        f = MonotoneMap(W.transposed(), y, project)
        solution = solver(f, jax.tree.map(jnp.zeros_like, y))
        return solution._replace(value=f.argument(solution.value))

    def onward(solver: Solver, y: PyTree) -> Solution:
        solution = solver(MonotoneMap(W, W(y), project), jax.tree.map(jnp.zeros_like, y))
        return solution._replace(value=jax.tree.map(jnp.add, solution.value, y))

    def solve(transposed: Transposed, y: PyTree, fixed_point: Callable[..., Solution]) -> Solution:
        def by_parts(f: Any, g0: PyTree, y: PyTree, *, solver: Solver, **settings: Any) -> Solution:
            (known,) = unmarked((y,))
            solve_parts = backward if is_transposed else onward
            higher = _by_parts(adjoint, W, mask, is_transposed=not is_transposed)
            settings = {"adjoint": higher} | settings
            return fixed_point(f, g0, y, solver=lambda f, z0: solve_parts(solver, known), **settings)

        return adjoint(transposed, y, by_parts)

    return solve
