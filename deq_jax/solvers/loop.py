"""The one loop that every solver shares.

It evaluates ``f``, measures residuals, freezes finished samples, keeps the best iterate, and counts. It does not know
how the next iterate is found: that is a ``Rule``, as an optimiser in optax is an ``(init, update)`` pair in one
training step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Bool, Float, Int, PyTree

from deq_jax.settings import Scalar, check_positive, whole_number
from deq_jax.single import batch_of_one, only_problem
from deq_jax.solution import Solution, Status
from deq_jax.trees import (
    Matrices,
    accumulation_dtype,
    batch_size,
    flatten_function,
    flatten_samples,
    matched,
    relative_residual,
    restore_samples,
    sample_where,
)
from deq_jax.varying import varying_like


class Rule(NamedTuple):
    """How to propose the next iterate from what has been seen.

    The loop hands a rule flattened states, pytrees whose leaves are matrices ``[batch, n]``. A rule must treat samples
    independently. It need not care about samples that have finished or diverged: what it proposes for them is dropped.
    """

    init: Callable[[Matrices], PyTree]
    """``init(z0) -> state``: what the rule remembers before the first evaluation."""
    update: Callable[[Matrices, Matrices, PyTree, Int[Array, ""]], tuple[Matrices, PyTree]]
    """``update(z, fz, state, k) -> (z_next, state)`` after evaluation ``k`` (from 0), which found ``fz = f(z)``."""


class _Carry(NamedTuple):
    k: Int[Array, ""]
    z: Matrices
    best: Matrices
    best_residual: Float[Array, " batch"]
    iterations: Int[Array, " batch"]
    status: Int[Array, " batch"]
    active: Bool[Array, " batch"]
    rule_state: PyTree
    trace: Float[Array, "max_iter batch"] | None


def solve(
    rule: Rule,
    f: Callable[[PyTree], PyTree],
    z0: PyTree,
    *,
    tol: Scalar,
    max_iter: int,
    trace: bool = False,
    batched: bool = True,
) -> Solution:
    """Find ``z = f(z)``, each sample on its own, by the iteration that ``rule`` proposes.

    A sample stops when its relative residual is at most ``tol`` (CONVERGED), when ``f`` of it, or the norm of that, is
    not finite (DIVERGED), or with the batch, after ``max_iter`` evaluations (MAX_ITER). From then on it is frozen.

    Args:
        rule: proposes iterates.
        f: maps a state to a state of the same structure, shapes and dtypes, each sample on its own.
        z0: where to start; a pytree of floating-point arrays ``[batch, ...]``.
        tol: relative residual at which a sample has converged, positive. Where the solve is not differentiated it may
            be traced.
        max_iter: evaluations of ``f`` at most, positive.
        trace: whether to record the residual of every evaluation.
        batched: False where ``z0`` is one problem, of leaves of any shapes, and no batch; the solution has no
            batch axis then.

    Returns:
        A [`deq_jax.Solution`][] without a derivative, NaN in forward mode: that is [`deq_jax.fixed_point`][]'s.

    Raises:
        TypeError: ``f(z0)`` has another structure, shape or dtype than ``z0``, ``z0`` is not floating-point, or the
            solution is differentiated in reverse mode.
        ValueError: the leading axes of ``z0`` differ, or ``tol`` or ``max_iter`` is not positive.
    """
    if not batched:
        f, z0 = batch_of_one(f, z0)
        return only_problem(solve(rule, f, z0, tol=tol, max_iter=max_iter, trace=trace))
    check_positive("tol", tol)
    max_iter = whole_number("max_iter", max_iter)
    f, z0 = matched(f, z0)
    batch = batch_size(z0)
    flat_f, dtype = flatten_function(f, z0), accumulation_dtype(z0)

    def unfinished(carry: _Carry) -> Bool[Array, ""]:
        return (carry.k < max_iter) & jnp.any(carry.active)

    def evaluate(carry: _Carry) -> _Carry:
        fz = lax.optimization_barrier(flat_f(carry.z))
        residual = relative_residual(fz, carry.z)
        converged = carry.active & (residual <= tol)
        diverged = carry.active & jnp.isnan(residual)
        active = carry.active & ~converged & ~diverged
        # Of equals the latest: where the equilibrium is zero all residuals are alike, and iterates still get nearer.
        better = carry.active & (residual <= carry.best_residual) & jnp.isfinite(residual)
        proposed, rule_state = rule.update(carry.z, fz, carry.rule_state, carry.k)
        return _Carry(
            k=carry.k + 1,
            z=sample_where(active, proposed, carry.z),
            best=sample_where(better, carry.z, carry.best),
            best_residual=jnp.where(better, residual, carry.best_residual),
            iterations=carry.iterations + carry.active.astype(jnp.int32),
            status=jnp.where(diverged, Status.DIVERGED, jnp.where(converged, Status.CONVERGED, carry.status)).astype(
                jnp.int8
            ),
            active=active,
            rule_state=rule_state,
            trace=None
            if carry.trace is None
            else carry.trace.at[carry.k].set(jnp.where(carry.active, residual, jnp.nan).astype(jnp.float32)),
        )

    flat_z0 = flatten_samples(z0)
    start = _Carry(
        k=jnp.int32(0),
        z=flat_z0,
        best=flat_z0,
        best_residual=jnp.full(batch, jnp.inf, dtype),
        iterations=jnp.zeros(batch, jnp.int32),
        status=jnp.full(batch, Status.MAX_ITER, jnp.int8),
        active=jnp.ones(batch, bool),
        rule_state=rule.init(flat_z0),
        trace=jnp.full((max_iter, batch), jnp.nan, jnp.float32) if trace else None,
    )
    # Within shard_map a loop's carry must say from the start over which mesh axes it will differ.
    start = varying_like(start, z0)._replace(k=start.k)
    end = lax.while_loop(unfinished, evaluate, start)
    return Solution(
        restore_samples(_not_differentiable(end.best), z0),
        end.best_residual.astype(jnp.float32),
        end.iterations,
        end.status,
        end.trace,
    )


@jax.custom_jvp
def _not_differentiable(value: Matrices) -> Matrices:
    """``value``, which has no derivative: that of the loop's steps is not that of the equilibrium.

    Asking for it is an error in reverse mode and NaN in forward mode, which cannot know whether it is asked for.
    """
    return value


@_not_differentiable.defjvp
def _no_tangent(primals: tuple, tangents: tuple) -> tuple[Matrices, Matrices]:
    return primals[0], jax.tree.map(_no_derivative.bind, tangents[0])


def _nan_like(tangent: Array) -> Array:
    return tangent * jnp.nan


def _refuse(cotangent: Array, tangent: Any) -> NoReturn:
    del cotangent, tangent
    raise TypeError(
        "a solver has no derivative, but its solution is differentiated. deq_jax.fixed_point(f, z0, *args, "
        "solver=...) has one in reverse mode, deq_jax.fixed_point_jvp in forward mode, too. Where none is meant, "
        "wrap the solution in jax.lax.stop_gradient."
    )


# A linear map of its own, since jax.custom_derivatives.linear_call cannot be mapped over by jax.vmap and jax.jacfwd.
_no_derivative = Primitive("no_derivative")
_no_derivative.def_impl(_nan_like)
_no_derivative.def_abstract_eval(lambda tangent: tangent)
mlir.register_lowering(_no_derivative, mlir.lower_fun(_nan_like, multiple_results=False))
ad.deflinear2(_no_derivative, _refuse)
batching.defvectorized(_no_derivative)
