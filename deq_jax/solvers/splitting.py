"""Operator splitting: solvers of ``z = prox(W z + b)`` that know its parts, and so find what any weights have.

Both are rules of the shared loop. They know ``W z + b`` of their iterates, so that an evaluation of ``f`` costs what
they need anyway: one product by ``W``, or by the resolvent.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree

from deq_jax.operators import MonotoneMap
from deq_jax.operators.operator import Operator
from deq_jax.settings import Scalar, check_positive
from deq_jax.solution import Solution
from deq_jax.solvers.loop import Rule, solve
from deq_jax.states.trees import Matrices, flatten_samples, restore_samples


def forward_backward(
    f: MonotoneMap,
    z0: PyTree,
    *,
    alpha: Scalar | None = None,
    tol: Scalar = 1e-2,
    max_iter: int = 50,
    atol: Scalar = 0.0,
    trace: bool = False,
) -> Solution:
    r"""Solve ``z = prox(W z + b)`` by forward–backward splitting, each sample on its own.

    $$z \leftarrow \mathrm{prox}\big((1 - \alpha)\,z + \alpha\,(W z + b)\big).$$

    With ``I − W`` monotone by ``m`` and ``L = ‖I − W‖₂`` it converges for every ``alpha`` below ``2m/L²``, and fastest
    for certain, by ``√(1 − m²/L²)`` a step, for ``m/L²``. An evaluation is one product by ``W``.

    Args:
        f: a [`deq_jax.operators.MonotoneMap`][].
        z0: where to start; a pytree of floating-point arrays ``[batch, ...]``.
        alpha: the step; None for ``m/L²``, by an upper bound of ``L`` that is found anew in each solve.
        tol: relative residual ``‖f(z) − z‖₂ / ‖f(z)‖₂`` at which a sample has converged.
        max_iter: evaluations at most.
        atol: ``‖f(z) − z‖₂`` at which a sample has converged, too, at least 0: for equilibria near zero.
        trace: whether to record the residual of every evaluation.

    Returns:
        A [`deq_jax.Solution`][] without a derivative: that is [`deq_jax.monotone_fixed_point`][]'s.

    Raises:
        TypeError: ``f`` is no MonotoneMap, or ``f(z0)`` has another structure, shape or dtype than ``z0``.
        ValueError: a setting is not positive, or ``alpha`` is 2m/L² or more, from which on the iteration may diverge;
            where they are traced, as within ``jax.jit``, the statuses tell.

    Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, algorithm 1.
    """
    alpha = _safe_step(_checked(f, "forward_backward").W, alpha)

    def evaluate(z: Matrices, argument: Matrices) -> tuple[Matrices, Matrices]:
        del argument
        argument = f.argument(restore_samples(z, z0))
        return flatten_samples(f.prox(argument)), flatten_samples(argument)

    def update(z: Matrices, fz: Matrices, argument: Matrices, k: Int[Array, ""]) -> tuple[Matrices, Matrices]:
        del fz, k
        step = jax.tree.map(lambda z, a: z + alpha * (a - z), z, argument)
        return flatten_samples(f.prox(restore_samples(step, z0))), argument

    rule = Rule(lambda z0: z0, update, evaluate=evaluate)
    return solve(rule, f, z0, tol=tol, max_iter=max_iter, atol=atol, trace=trace)


def peaceman_rachford(
    f: MonotoneMap,
    z0: PyTree,
    *,
    alpha: Scalar | None = None,
    tol: Scalar = 1e-2,
    max_iter: int = 50,
    atol: Scalar = 0.0,
    trace: bool = False,
) -> Solution:
    r"""Solve ``z = prox(W z + b)`` by Peaceman–Rachford splitting, each sample on its own.

    With the resolvent $R = (I + \alpha (I - W))^{-1}$, formed once a solve,

    $$z = R(v + \alpha b), \qquad u = 2 z - v, \qquad v \leftarrow 2\,\mathrm{prox}(u) - u.$$

    It converges for every ``alpha`` > 0. An evaluation is one product by ``R``: that ``z`` solves
    ``z + α(z − W z − b) = v`` gives ``W z + b``, and so ``f(z)``, for nothing. The first is one by ``W``,
    and costs nothing where ``z0`` is zero.

    Args:
        f: a [`deq_jax.operators.MonotoneMap`][].
        z0: where to start; a pytree of floating-point arrays ``[batch, ...]``.
        alpha: the step, any positive number; None for ``1/L``, ``L`` an upper bound of ``‖I − W‖₂`` that is found anew
            in each solve: by it every iteration shrinks the distance to at most ``√((L − m)/(L + m))`` of itself.
        tol: relative residual ``‖f(z) − z‖₂ / ‖f(z)‖₂`` at which a sample has converged.
        max_iter: evaluations at most.
        atol: ``‖f(z) − z‖₂`` at which a sample has converged, too, at least 0: for equilibria near zero.
        trace: whether to record the residual of every evaluation.

    Returns:
        A [`deq_jax.Solution`][] without a derivative: that is [`deq_jax.monotone_fixed_point`][]'s.

    Raises:
        TypeError: ``f`` is no MonotoneMap, or ``f(z0)`` has another structure, shape or dtype than ``z0``.
        ValueError: a setting is not positive.

    Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, algorithm 2.
    """
    W = _checked(f, "peaceman_rachford").W
    if alpha is None:
        alpha = 1 / W.norm()
    check_positive("alpha", alpha)
    resolvent = W.resolvent(alpha)

    def argument(z: Matrices, v: Matrices) -> Matrices:
        """``W z + b``, by what ``z`` solves."""
        return jax.tree.map(lambda z, v: z + (z - v) / alpha, z, v)

    def init(z0_flat: Matrices) -> Matrices:
        is_zero = functools.reduce(jnp.logical_and, [jnp.all(leaf == 0) for leaf in jax.tree.leaves(z0)])
        start = lax.cond(is_zero, lambda: f.b, lambda: f.argument(z0))
        return jax.tree.map(lambda z, a: z + alpha * (z - a), z0_flat, flatten_samples(start))

    def evaluate(z: Matrices, v: Matrices) -> tuple[Matrices, Matrices]:
        return flatten_samples(f.prox(restore_samples(argument(z, v), z0))), v

    def update(z: Matrices, fz: Matrices, v: Matrices, k: Int[Array, ""]) -> tuple[Matrices, Matrices]:
        del fz, k
        u = jax.tree.map(lambda z, v: 2 * z - v, z, v)
        shadow = flatten_samples(f.prox(restore_samples(u, z0)))
        v = jax.tree.map(lambda s, u: 2 * s - u, shadow, u)
        moved = jax.tree.map(lambda v, b: v + alpha * b, restore_samples(v, z0), f.b)
        return flatten_samples(resolvent(moved)), v

    rule = Rule(init, update, evaluate=evaluate)
    return solve(rule, f, z0, tol=tol, max_iter=max_iter, atol=atol, trace=trace)


def _checked(f: Any, solver: str) -> MonotoneMap:
    if not isinstance(f, MonotoneMap):
        raise TypeError(
            f"{solver} takes a deq_jax.operators.MonotoneMap, whose W, b and prox it needs, got "
            f"{type(f).__name__}. For any other f use anderson."
        )
    return f


def _safe_step(W: Operator, alpha: Scalar | None) -> Scalar:
    """The step of forward–backward splitting that is certain to converge, or the one that is given."""
    safe = W.m / W.norm() ** 2
    if alpha is None:
        return safe
    check_positive("alpha", alpha)
    if not isinstance(alpha * safe, jax.core.Tracer) and alpha >= 2 * safe:
        raise ValueError(
            f"alpha={float(alpha):.3g} is too long a step: forward_backward converges for certain below 2m/L² = "
            f"{float(2 * safe):.3g}, and may diverge from there on. Give at most that, m/L² = {float(safe):.3g} or "
            "None, or use peaceman_rachford, which converges by any step."
        )
    return alpha
