"""The one loop that every solver shares.

It evaluates ``f``, measures residuals, freezes finished samples, keeps the best iterate, and counts. It does not know
how the next iterate is found: that is a ``Rule``, as an optimiser in optax is an ``(init, update)`` pair in one
training step.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from deq_jax.gradients.derivatives import without_derivative
from deq_jax.settings import Scalar, check_positive, whole_number
from deq_jax.solution import Solution, Status
from deq_jax.solvers.fallback import Fallback, judge, nothing_judged
from deq_jax.solvers.working_set import Loop, begins_at_any_time, narrowing
from deq_jax.states.coupled import axes_within, summed_over
from deq_jax.states.made_once import made_once
from deq_jax.states.norms import in_proportion, sample_norms
from deq_jax.states.single import batch_of_one, only_problem
from deq_jax.states.trees import (
    Matrices,
    Rows,
    accumulation_dtype,
    batch_size,
    flatten_function,
    flatten_samples,
    matched,
    restore_samples,
    sample_difference,
    sample_where,
)
from deq_jax.states.varying import varying_like


class Rule(NamedTuple):
    """How to propose the next iterate from what has been seen.

    The loop hands a rule flattened states, pytrees whose leaves are matrices ``[batch, n]``. A rule must treat samples
    independently. It need not care about samples that have finished or diverged: what it proposes for them is dropped.

    A rule that can forget gets a second chance with a sample that it has led astray: the loop goes back to its best
    iterate and takes plain steps for a while. Without ``forget``, what is not finite has diverged at once.
    """

    init: Callable[[Matrices], PyTree]
    """``init(z0) -> state``: what the rule remembers before the first evaluation."""
    update: Callable[[Matrices, Matrices, PyTree, Int[Array, ""]], tuple[Matrices, PyTree]]
    """``update(z, fz, state, k) -> (z_next, state)`` after evaluation ``k`` (from 0), which found ``fz = f(z)``."""
    forget: Callable[[PyTree, Bool[Array, " batch"]], PyTree] | None = None
    """``forget(state, samples) -> state``, before an update whose ``fz`` is the last one that those are to forget."""
    plain: Callable[[Matrices, Matrices], Matrices] = lambda z, fz: fz
    """``plain(z, fz) -> z_next``: the plain step that is taken in the rule's place; ``fz`` if not given."""
    evaluate: Callable[[Matrices, PyTree], tuple[Matrices, PyTree]] | None = None
    """``evaluate(z, state) -> (fz, state)``, where the rule knows ``f(z)`` by what it does anyway; None: ``f`` is
    called."""


class _Carry(NamedTuple):
    k: Int[Array, ""]
    z: Matrices
    best: Matrices
    best_residual: Float[Array, " batch"]
    judged: Fallback
    iterations: Int[Array, " batch"]
    status: Int[Array, " batch"]
    active: Bool[Array, " batch"]
    rule_state: PyTree
    trace: Float[Array, "max_iter batch"] | None


class _Ended(NamedTuple):
    best: Matrices
    best_residual: Float[Array, " batch"]
    iterations: Int[Array, " batch"]
    status: Int[Array, " batch"]
    trace: Float[Array, "max_iter batch"] | None


def _ended(carry: Any) -> _Ended:
    return _Ended(carry.best, carry.best_residual, carry.iterations, carry.status, carry.trace)


def _noted(carry: _Carry, residual: Float[Array, " batch"]) -> Float[Array, "max_iter batch"] | None:
    """The trace, with the residual of each sample's latest evaluation."""
    if carry.trace is None:
        return None
    return carry.trace.at[carry.iterations, jnp.arange(residual.shape[0])].set(residual.astype(jnp.float32))


def solve(
    rule: Rule,
    f: Callable[[PyTree], PyTree],
    z0: PyTree,
    *,
    tol: Scalar,
    max_iter: int,
    atol: Scalar = 0.0,
    trace: bool = False,
    batched: bool = True,
) -> Solution:
    """Find ``z = f(z)``, each sample on its own, by the iteration that ``rule`` proposes.

    A sample stops when its relative residual is at most ``tol``, and not for its norm alone (CONVERGED), when ``f`` of
    it, or the norm of that, is not finite and plain steps from its best iterate do not help (DIVERGED), or with the
    batch, after ``max_iter`` evaluations (MAX_ITER). From then on it is frozen.

    Args:
        rule: proposes iterates.
        f: maps a state to a state of the same structure, shapes and dtypes, each sample on its own.
        z0: where to start; a pytree of floating-point arrays ``[batch, ...]``.
        tol: relative residual at which a sample has converged, positive. Where the solve is not differentiated it may
            be traced.
        max_iter: evaluations of ``f`` at most, positive.
        atol: ``‖f(z) − z‖₂`` at which a sample has converged, too, at least 0: for equilibria near zero.
        trace: whether to record the residual of every evaluation.
        batched: False where ``z0`` is one problem, of leaves of any shapes, and no batch; the solution has no
            batch axis then.

    Returns:
        A [`deq_jax.Solution`][] without a derivative, NaN in forward mode: that is [`deq_jax.fixed_point`][]'s.

    Raises:
        TypeError: ``f(z0)`` has another structure, shape or dtype than ``z0``, ``z0`` is not floating-point, or the
            solution is differentiated in reverse mode.
        ValueError: the leading axes of ``z0`` differ, ``tol`` or ``max_iter`` is not positive, or ``atol`` is negative.
    """
    if not batched:
        f, z0 = batch_of_one(f, z0)
        return only_problem(solve(rule, f, z0, tol=tol, max_iter=max_iter, atol=atol, trace=trace))
    check_positive("tol", tol)
    check_positive("atol", atol, or_zero=True)
    max_iter = whole_number("max_iter", max_iter)
    for_rows: Any = getattr(f, "for_rows", None)
    width: int | None = getattr(f, "width", None)
    f, z0 = matched(f, z0)
    flat_z0, dtype = flatten_samples(z0), accumulation_dtype(z0)
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(z0))
    tol, atol = (jnp.asarray(bound).astype(dtype) for bound in (tol, atol))

    def evaluate(flat_f: Callable[[Matrices], Matrices], origin: Matrices, carry: _Carry) -> _Carry:
        rule_state = carry.rule_state
        with summed_over(()):  # it may solve within
            if rule.evaluate is None:
                fz = flat_f(carry.z)
            else:
                fz, rule_state = rule.evaluate(carry.z, rule_state)
        fz = made_once(fz)
        step, size = sample_norms(sample_difference(fz, carry.z), fz)
        residual = in_proportion(step, size)
        # Left to itself, the compiler computes the judgement anew for each number that it consists of.
        believed, better, returns, restarts, judged = made_once(judge(carry.judged, step, size, eps))
        converged = carry.active & believed & ((residual <= tol) | (step <= atol))
        better = carry.active & (better | converged)
        finite = jnp.isfinite(step) & jnp.isfinite(size)
        diverged = carry.active & ~finite
        if rule.forget is None:
            z_next, rule_state = rule.update(carry.z, fz, rule_state, carry.k)
        else:
            diverged &= ~returns
            proposed, rule_state = rule.update(carry.z, fz, rule.forget(rule_state, returns), carry.k)
            held = sample_where(carry.judged.plain > 0, rule.plain(carry.z, fz), proposed)
            z_next = sample_where(returns, sample_where(restarts, origin, carry.best), held)
        iterations = carry.iterations + carry.active.astype(jnp.int32)
        active = carry.active & ~converged & ~diverged & (iterations < max_iter)
        status = jnp.where(diverged, int(Status.DIVERGED), carry.status)
        return _Carry(
            k=carry.k + 1,
            z=sample_where(active, z_next, carry.z),
            best=sample_where(better, carry.z, carry.best),
            best_residual=jnp.where(better, residual, carry.best_residual),
            judged=judged,
            iterations=iterations,
            status=jnp.where(converged, int(Status.CONVERGED), status).astype(jnp.int8),
            active=active,
            rule_state=rule_state,
            trace=_noted(carry, jnp.where(carry.active & finite, residual, jnp.inf)),
        )

    def begin(z0: Matrices) -> _Carry:
        batch = batch_size(z0)
        start = _Carry(
            k=jnp.int32(0),
            z=z0,
            best=z0,
            best_residual=jnp.full((batch,), jnp.inf, dtype),
            judged=nothing_judged(batch, dtype),
            iterations=jnp.zeros((batch,), jnp.int32),
            status=jnp.full((batch,), Status.MAX_ITER, jnp.int8),
            active=jnp.ones((batch,), bool),
            rule_state=rule.init(z0),
            trace=jnp.full((max_iter, batch), jnp.inf, jnp.float32) if trace else None,
        )
        # Within shard_map a loop's carry must say from the start over which mesh axes it will differ.
        return varying_like(start, z0)._replace(k=start.k)

    def run(carry: _Carry, rows: Rows | None, room: int) -> _Carry:
        """Until no more than ``room`` of the samples of these rows, None for all of them, are active."""
        of_rows, form, origin = f, z0, flat_z0
        if rows is not None:
            of_rows, (form, origin) = for_rows(rows), jax.tree.map(lambda leaf: leaf[rows], (z0, flat_z0))

        def unfinished(carry: _Carry) -> Bool[Array, ""]:
            return jnp.sum(carry.active) > room if room else jnp.any(carry.active)

        evaluation = functools.partial(evaluate, flatten_function(of_rows, form), origin)
        return lax.while_loop(unfinished, evaluation, carry)

    with summed_over(axes_within(f, z0)):
        if for_rows is None:
            end = _ended(run(begin(flat_z0), None, 0))
        else:
            at_a_time = width if width and begins_at_any_time(rule, flat_z0) else None
            end = narrowing(Loop(begin, run, _ended), flat_z0, at_a_time)
    return Solution(
        restore_samples(without_derivative(end.best), z0),
        end.best_residual.astype(jnp.float32),
        end.iterations,
        end.status,
        end.trace,
    )
