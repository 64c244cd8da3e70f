"""The primitive: solve ``z = f(z, *args)``, and differentiate the solution by the implicit function theorem."""

from collections.abc import Callable
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from deq_jax.calls import advised_primitive
from deq_jax.gradients.adjoint import Adjoint, AdjointReport, Solver, implicit
from deq_jax.gradients.closures import take_out
from deq_jax.gradients.derivatives import in_reverse_mode_only
from deq_jax.gradients.implicit_function import (
    can_be_narrowed,
    check_adjoint,
    check_arguments,
    check_solution,
    check_solver,
    hoist,
    hoist_groups,
    where_solved,
)
from deq_jax.gradients.kept import kept_for_backward
from deq_jax.settings import whole_number
from deq_jax.solution import Solution
from deq_jax.solvers import anderson
from deq_jax.states.pairs import state_of
from deq_jax.states.per_sample import PerSample, check_marks, transposed_at, unmarked
from deq_jax.states.single import batch_of_one, only_problem, with_axis
from deq_jax.states.spread import AXIS, devices_of, on_each_device
from deq_jax.states.trees import Batch, batch_size, matched
from deq_jax.states.varying import varying_axes, varying_like


@overload
def fixed_point(
    f: Callable[..., PyTree],
    z0: PyTree,
    *args: Any,
    solver: Solver = ...,
    adjoint: Adjoint | None = ...,
    report: AdjointReport | None = ...,
    batched: bool = ...,
    has_aux: Literal[False] = ...,
) -> Solution: ...
@overload
def fixed_point(
    f: Callable[..., tuple[PyTree, Any]],
    z0: PyTree,
    *args: Any,
    solver: Solver = ...,
    adjoint: Adjoint | None = ...,
    report: AdjointReport | None = ...,
    batched: bool = ...,
    has_aux: Literal[True],
) -> tuple[Solution, Any]: ...
@advised_primitive
def fixed_point(
    f: Callable[..., PyTree],
    z0: PyTree,
    *args: Any,
    solver: Solver = anderson,
    adjoint: Adjoint | None = None,
    report: AdjointReport | None = None,
    batched: bool = True,
    has_aux: bool = False,
) -> Solution | tuple[Solution, Any]:
    r"""Solve ``z = f(z, *args)`` for a batch of samples, differentiably in ``args`` and in whatever ``f`` closes over.

    The solve itself is not differentiated. At the solution ``z_star``, a cotangent ``y`` of it becomes a cotangent
    ``θ̄`` of the parameters ``θ`` (``args`` and closure alike) through the adjoint equation,

    $$g = J^\top g + y, \qquad \bar\theta = J_\theta^\top g, \qquad
    J = \frac{\partial f}{\partial z}, \quad J_\theta = \frac{\partial f}{\partial \theta} \quad \text{at } z^\star,$$

    so memory does not grow with the evaluations spent. With an exact adjoint the gradient is as accurate as both
    solves, and can be differentiated again, in reverse mode; forward mode is [`deq_jax.fixed_point_jvp`][]'s. What a
    backward solve has found is used, however short it fell: the gradient is then wrong. ``report`` tells, and
    [`deq_jax.or_nan`][] makes it NaN.

    The gradient with respect to ``z0`` is zero. A sample that diverged has no equilibrium to differentiate, and adds
    nothing to any gradient, so long as ``f`` and its derivative are finite at the value returned for it. Where they are
    not, as with a NaN in its input, what it shares with others gets 0 · NaN, which is NaN: clean such inputs before.

    Args:
        f: maps a state and ``args`` to a state of the same structure, shapes and dtypes. Samples must be independent,
            and the function pure.
        z0: where to start; a pytree of floating-point arrays ``[batch, ...]``. An array of one axis is a batch of
            numbers, unless ``batched=False`` says that it is one problem. [`deq_jax.check_independence`][] tells
            whether samples mix.
        *args: what ``f`` depends on besides: any pytrees of arrays, integer arrays included.
        solver: any callable ``(f, z0) -> Solution``, usually ``functools.partial(anderson, tol=1e-3)``. The equilibrium
            does not depend on its settings, traced ones included, whose gradient is zero.
        adjoint: how the adjoint equation is met: None for the same solver as forward, or one of
            [`deq_jax.implicit`][], [`deq_jax.krylov`][], [`deq_jax.direct`][], [`deq_jax.jacobian_free`][],
            [`deq_jax.phantom`][], or one of them in [`deq_jax.or_nan`][] or [`deq_jax.recomputed`][].
        report: the zeros of [`deq_jax.adjoint_report`][]; the gradient with respect to them is an
            [`deq_jax.AdjointReport`][] of the backward solve.
        batched: False where ``z0`` is one problem, and no batch: leaves of any shapes, numbers included, that ``f``
            takes and returns. The solution's ``value`` is like ``z0``, the rest of it scalars, and the report that of
            ``adjoint_report(None)``. The solver is given a batch of one, and needs no such word.
        has_aux: True where ``f`` returns a pair ``(z, aux)``. One more evaluation, at the equilibrium, gives ``aux``,
            through which gradients flow as well.

    Returns:
        A [`deq_jax.Solution`][], or with ``has_aux`` a pair of it and ``aux``. Only its ``value`` and ``aux`` carry
        gradients.

    Raises:
        TypeError: ``f(z0, *args)`` has another structure, shape or dtype than ``z0``, ``z0`` is not floating-point,
            ``args`` hold something that is no array, ``solver`` returns something else than a Solution like ``z0``,
            ``adjoint`` is no adjoint, or a derivative is asked for in forward mode.
        ValueError: the leading axes of ``z0`` differ, or ``report`` is not that of ``z0``'s batch, or within
            ``jax.shard_map`` is one for all devices.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> def z_star(x):
        ...     return fixed_point(lambda z, x: 0.5 * z + x, jnp.zeros((1, 1)), x).value.sum()
        >>> print(f"{jax.grad(z_star)(jnp.ones((1, 1)))[0, 0]:.3f}")
        2.000

    Source: Bai et al., "Deep equilibrium models", 2019, theorem 1; the chapter, "Implicit differentiation of
    equilibrium layers" and "Implementing the backward pass".
    """
    check_arguments(args)
    check_solver("solver", solver)
    settings: dict[str, Any] = {"solver": solver, "adjoint": adjoint}
    if has_aux:
        solution = fixed_point(state_of(f), z0, *args, report=report, batched=batched, **settings)
        return solution, f(solution.value, *unmarked(args))[1]
    if not batched:
        check_marks(args, None)
        f, z0 = batch_of_one(f, z0, *args)
        _check_report(report, None, z0)
        return only_problem(fixed_point(f, z0, *args, report=with_axis(report), **settings))
    whole, marked, args = f, args, unmarked(args)
    f, z0 = matched(f, z0, *args)
    batch = batch_size(z0)
    check_marks(marked, batch)
    z0 = lax.stop_gradient(z0)
    _check_report(report, batch, z0)
    adjoint = implicit(solver) if adjoint is None else check_adjoint(adjoint)
    devices = devices_of(batch)
    if devices > 1 and can_be_narrowed(whole, z0, marked, batch // devices):
        return _on_each_device(whole, z0, marked, report, settings)
    apply, closure = hoist(f, z0, args)
    in_groups, narrow = hoist_groups(whole, z0, marked)
    is_recomputed = getattr(adjoint, "is_recomputed", False)
    held, given = take_out((solver, adjoint))

    @jax.custom_vjp
    def solve(
        z0: PyTree, args: tuple, closure: list, narrow: list, held: list, report: AdjointReport | None
    ) -> Solution:
        del report
        solver, _ = given(held)
        solution = solver(in_groups(lambda z: apply(z, args, closure), args, narrow), z0)
        check_solution(solution, z0)
        return solution

    def forward(
        z0: PyTree, args: tuple, closure: list, narrow: list, held: list, report: AdjointReport | None
    ) -> tuple[Solution, tuple]:
        solution = solve(z0, args, closure, narrow, held, report)
        return solution, (solution.value, solution.status, *kept_for_backward((args, closure, narrow, held, report)))

    def backward(residuals: tuple, cotangent: Solution) -> tuple:
        z_star, status, args, closure, narrow, held, report = residuals
        _, adjoint = given(held)
        y = where_solved(status, cotangent.value)
        of_groups = in_groups(lambda z: apply(z, args, closure), args, narrow)
        transposed = transposed_at(of_groups, z_star, is_recomputed=is_recomputed)
        solution = adjoint(transposed, y, fixed_point)
        _, pull_back = jax.vjp(lambda args, closure: apply(z_star, args, closure), args, closure)
        z0_bar = jax.tree.map(jnp.zeros_like, z_star)
        return z0_bar, *pull_back(solution.value), None, None, None if report is None else _as_report(solution, report)

    solve.defvjp(forward, backward)
    args, closure, report = in_reverse_mode_only((args, closure, report))
    return solve(z0, args, closure, lax.stop_gradient(narrow), held, report)


def unrolled(f: Callable[..., PyTree], z0: PyTree, *args: Any, steps: int, batched: bool = True) -> PyTree:
    """Apply ``z ← f(z, *args)`` ``steps`` times, differentiated by plain backpropagation: the baseline.

    A network of ``steps`` weight-tied layers. Its memory grows with ``steps``, and its gradient includes ``z0``.

    Args:
        f: maps a state and ``args`` to a state of the same structure, shapes and dtypes.
        z0: where to start; a pytree of floating-point arrays ``[batch, ...]``.
        *args: what ``f`` depends on besides.
        steps: how often to apply ``f``, at least 1.
        batched: False where ``z0`` is one problem, of leaves of any shapes, and no batch.

    Returns:
        The last iterate, like ``z0``.

    Raises:
        TypeError: ``f(z0, *args)`` has another structure, shape or dtype than ``z0``, or ``z0`` is not floating-point.
        ValueError: the leading axes of ``z0`` differ, or ``steps`` is not positive.

    Source: the chapter, "Deep networks and fixed point equations", the weight-tied network with input injection.
    """
    steps = whole_number("steps", steps)
    f, z0 = matched(f, z0, *args, batched=batched)
    z, _ = lax.scan(lambda z, _: (f(z, *args), None), z0, length=steps)
    return z


def _on_each_device(
    f: Callable[..., PyTree], z0: PyTree, args: tuple, report: AdjointReport | None, settings: dict[str, Any]
) -> Solution:
    """Each device's own equilibria, of its rows of what is marked; what all have belongs to each."""
    rows = {i: arg for i, arg in enumerate(args) if isinstance(arg, PerSample)}

    def solve(z0: PyTree, rows: dict[int, PerSample], report: AdjointReport | None) -> Solution:
        own = tuple(rows.get(i, arg) for i, arg in enumerate(args))
        return fixed_point(f, z0, *own, report=report, **settings)

    lies: Any = P(AXIS)
    out = Solution(value=lies, residual=lies, iterations=lies, status=lies, trace=P(None, AXIS))  # type: ignore[arg-type]
    return on_each_device(solve, z0, rows, report, out=out)


def _check_report(report: Any, batch: Batch | None, z0: PyTree) -> None:
    shape = () if batch is None else (batch,)
    if report is not None and (
        not isinstance(report, AdjointReport) or any(jnp.shape(leaf) != shape for leaf in report)
    ):
        raise ValueError(
            f"report must be deq_jax.adjoint_report({batch}), zeros for the batch of z0, or one problem's for None; "
            f"got {jax.tree.map(jnp.shape, report)!r}."
        )
    missing = tuple(sorted(varying_axes(z0) - varying_axes(report)))
    if report is not None and missing:
        raise ValueError(
            f"within shard_map the report must differ over the mesh axes {missing}, as the state does, or the devices' "
            f"reports would be added up: make it by jax.lax.pcast(deq_jax.adjoint_report({batch}), {missing}, "
            'to="varying").'
        )


def _as_report(solution: Solution, report: AdjointReport) -> AdjointReport:
    numbers = AdjointReport(solution.residual, solution.iterations, solution.status)
    return varying_like(jax.tree.map(lambda a: lax.stop_gradient(a.astype(jnp.float32)), numbers), report)
