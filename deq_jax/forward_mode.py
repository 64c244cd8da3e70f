"""The primitive's sibling for forward mode: ``jax.jvp``, ``jax.jacfwd``, Hessians as ``jacfwd`` of ``jacrev``."""

from collections.abc import Callable
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree

from deq_jax.calls import advised_primitive
from deq_jax.gradients.adjoint import Solver
from deq_jax.gradients.closures import take_out
from deq_jax.gradients.implicit_function import (
    check_arguments,
    check_solution,
    check_solver,
    hoist,
    hoist_groups,
    where_solved,
)
from deq_jax.solution import Solution
from deq_jax.solvers import anderson
from deq_jax.states.norms import sample_unit
from deq_jax.states.pairs import state_of
from deq_jax.states.per_sample import Narrowable, check_marks, pushed_at, rows_at, transposed_at, unmarked
from deq_jax.states.single import batch_of_one, only_problem
from deq_jax.states.trees import Rows, batch_size, flatten_samples, matched, restore_samples, sample_scale


@overload
def fixed_point_jvp(
    f: Callable[..., PyTree],
    z0: PyTree,
    *args: Any,
    solver: Solver = ...,
    tangent_solver: Solver | None = ...,
    batched: bool = ...,
    has_aux: Literal[False] = ...,
) -> Solution: ...
@overload
def fixed_point_jvp(
    f: Callable[..., tuple[PyTree, Any]],
    z0: PyTree,
    *args: Any,
    solver: Solver = ...,
    tangent_solver: Solver | None = ...,
    batched: bool = ...,
    has_aux: Literal[True],
) -> tuple[Solution, Any]: ...
@advised_primitive
def fixed_point_jvp(
    f: Callable[..., PyTree],
    z0: PyTree,
    *args: Any,
    solver: Solver = anderson,
    tangent_solver: Solver | None = None,
    batched: bool = True,
    has_aux: bool = False,
) -> Solution | tuple[Solution, Any]:
    r"""Solve ``z = f(z, *args)`` as [`deq_jax.fixed_point`][] does, differentiably in forward and reverse mode.

    The tangent ``t`` of the solution, for tangents ``dθ`` of ``args`` and of whatever ``f`` closes over, solves a
    linear fixed point,

    $$t = \frac{\partial f}{\partial z}\,t + \frac{\partial f}{\partial \theta}\,d\theta,$$

    and is linear in ``dθ``, so that JAX transposes it for reverse mode. Why it is not the only primitive: it pushes
    tangents through ``f``, so ``f`` may hold no ``jax.custom_vjp``, and [`deq_jax.nn.Conv`][] is one; and its
    backward solve can neither be approximated nor report on itself. For training, use [`deq_jax.fixed_point`][].

    Args:
        f: maps a state and ``args`` to a state of the same structure, shapes and dtypes. Samples must be independent,
            and the function pure.
        z0: where to start; a pytree of floating-point arrays ``[batch, ...]``; it has no derivative.
        *args: what ``f`` depends on besides: any pytrees of arrays, integer arrays included.
        solver: any callable ``(f, z0) -> Solution``, usually ``functools.partial(anderson, tol=1e-3)``.
        tangent_solver: the solver for tangents and cotangents; None for ``solver``.
        batched: False where ``z0`` is one problem, of leaves of any shapes, and no batch; the solution's ``value`` is
            then like ``z0``, and the rest of it scalars.
        has_aux: True where ``f`` returns a pair ``(z, aux)``, as in [`deq_jax.fixed_point`][].

    Returns:
        A [`deq_jax.Solution`][], or with ``has_aux`` a pair of it and ``aux``. Only its ``value`` and ``aux`` carry
        derivatives.

    Raises:
        TypeError: ``f(z0, *args)`` has another structure, shape or dtype than ``z0``, ``z0`` is not floating-point,
            a solver is no callable ``(f, z0)`` or returns something else than a Solution like ``z0``, or ``f`` has no
            forward mode.
        ValueError: the leading axes of ``z0`` differ.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> def z_star(x):
        ...     return fixed_point_jvp(lambda z, x: 0.5 * z + x, jnp.zeros((1, 1)), x).value
        >>> print(f"{jax.jvp(z_star, (jnp.ones((1, 1)),), (jnp.ones((1, 1)),))[1][0, 0]:.3f}")
        2.000

    Source: the chapter, "Implicit differentiation of equilibrium layers", the explicit expression for the Jacobian.
    """
    check_arguments(args)
    check_solver("solver", solver)
    linear_solver = solver if tangent_solver is None else tangent_solver
    check_solver("tangent_solver", linear_solver)
    settings: dict[str, Any] = {"solver": solver, "tangent_solver": tangent_solver}
    if has_aux:
        solution = fixed_point_jvp(state_of(f), z0, *args, batched=batched, **settings)
        return solution, f(solution.value, *unmarked(args))[1]
    if not batched:
        check_marks(args, None)
        f, z0 = batch_of_one(f, z0, *args)
        return only_problem(fixed_point_jvp(f, z0, *args, **settings))
    whole, marked, args = f, args, unmarked(args)
    f, z0 = matched(f, z0, *args)
    check_marks(marked, batch_size(z0))
    z0 = lax.stop_gradient(z0)
    apply, closure = hoist(f, z0, args)
    in_groups, narrow = hoist_groups(whole, z0, marked)
    held, given = take_out((solver, linear_solver))

    fixed = lax.stop_gradient((args, closure))
    solution = given(held)[0](in_groups(lambda z: apply(z, *fixed), fixed[0], lax.stop_gradient(narrow)), z0)
    check_solution(solution, z0)
    solution = lax.stop_gradient(solution)

    @jax.custom_jvp
    def differentiable(
        z_star: PyTree, status: Int[Array, " batch"], held: list, narrow: list, args: tuple, closure: list
    ) -> PyTree:
        del status, held, narrow, args, closure
        return z_star

    @differentiable.defjvp
    def push_forward(primals: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
        _, status, held, narrow, args, closure = primals
        _, linear_solver = given(held)
        z_star = differentiable(*primals)
        _, b = jax.jvp(lambda args, closure: apply(z_star, args, closure), (args, closure), tangents[4:])
        at_z_star = in_groups(lambda z: apply(z, args, closure), *lax.stop_gradient((args, narrow)))

        def residual(t: PyTree) -> PyTree:
            """The linear map ``(I − ∂f/∂z) t``."""
            _, jt = jax.jvp(lambda z: apply(z, args, closure), (z_star,), (t,))
            return jax.tree.map(jnp.subtract, t, jt)

        # What solves is not differentiated, only what it solves: JAX differentiates `residual`.
        forward, backward = (
            _solve_by(linear_solver, product(at_z_star, lax.stop_gradient(z_star)))
            for product in (pushed_at, transposed_at)
        )
        b = where_solved(status, b)
        return z_star, lax.custom_linear_solve(residual, b, forward, transpose_solve=backward)

    return solution._replace(
        value=differentiable(solution.value, solution.status, held, lax.stop_gradient(narrow), args, closure)
    )


def _solve_by(
    solver: Solver, product: Callable[[PyTree], PyTree]
) -> Callable[[Callable[[PyTree], PyTree], PyTree], PyTree]:
    """How ``t = product(t) + b`` is solved, where JAX gives ``residual(t) = t − product(t)`` of the whole batch."""

    def solve(residual: Callable[[PyTree], PyTree], b: PyTree) -> PyTree:
        # In units of b, as the adjoint is solved in those of y: both may be too small to square.
        flat = flatten_samples(b)
        unit = sample_unit(flat)
        b = restore_samples(sample_scale(flat, 1 / unit), b)

        def step(residual: Callable[[PyTree], PyTree], b: PyTree) -> Callable[[PyTree], PyTree]:
            return lambda t: jax.tree.map(lambda t, r, b: t - r + b, t, residual(t), b)

        f = step(residual, b)
        if isinstance(product, Narrowable):
            of_rows = product.for_rows

            def residual_of(rows: Rows) -> Callable[[PyTree], PyTree]:
                product = of_rows(rows)
                return lambda t: jax.tree.map(jnp.subtract, t, product(t))

            f = Narrowable(f, lambda rows: step(residual_of(rows), rows_at(b, rows)))
        t = solver(f, b).value
        return restore_samples(sample_scale(flatten_samples(t), unit), t)

    return solve
