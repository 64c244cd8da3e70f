"""Ways of meeting the adjoint equation ``g = (∂f/∂z)ᵀ g + y``, whose solution gives every gradient.

An ``Adjoint`` is a function ``(transposed, y, fixed_point) -> Solution``. It gets the linear map
``transposed(g) = (∂f/∂z)ᵀ g`` at the equilibrium, the incoming cotangent ``y``, and the primitive
[`deq_jax.fixed_point`][] itself: an exact adjoint is a fixed point too, and solved by the primitive it can be
differentiated again.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Float, PyTree

from deq_jax.gradients.implicit_function import check_adjoint, check_solver
from deq_jax.solution import Solution, Status
from deq_jax.solvers import anderson
from deq_jax.states.coupled import axes_within, summed_over
from deq_jax.states.norms import relative_residual, sample_unit
from deq_jax.states.per_sample import Narrowable, PerSample
from deq_jax.states.trees import (
    Batch,
    accumulation_dtype,
    flatten_samples,
    restore_samples,
    sample_scale,
    sample_where,
)
from deq_jax.states.varying import varying_like

Solver = Callable[[Callable[[PyTree], PyTree], PyTree], Solution]
Transposed = Callable[[PyTree], PyTree]
Adjoint = Callable[[Transposed, PyTree, Callable[..., Solution]], Solution]

DENSE_LIMIT = 4096
"""The largest state, in numbers a sample, of which ``direct`` will form the dense Jacobian."""


class AdjointReport(NamedTuple):
    """What the adjoint solve did, per sample, carried out of the backward pass as a gradient (hence all float32).

    Hand the zeros of ``adjoint_report`` to [`deq_jax.fixed_point`][]; the gradient with respect to them is the
    report. Give every solve a report of its own: gradients of a shared one add up.
    """

    residual: Float[Array, "*batch"]
    """Relative residual ``‖Jᵀg + y − g‖₂ / ‖Jᵀg + y‖₂`` of the solution; infinite where it is not measured."""
    iterations: Float[Array, "*batch"]
    """Vector-Jacobian products spent."""
    status: Float[Array, "*batch"]
    """A [`deq_jax.Status`][] per sample."""


export.register_namedtuple_serialization(AdjointReport, serialized_name="deq_jax.AdjointReport")


def adjoint_report(batch: Batch | None) -> AdjointReport:
    """Zeros to hand to [`deq_jax.fixed_point`][] as ``report``; its gradient is the ``AdjointReport``.

    Args:
        batch: samples in the batch of the solve; None for that of one problem, with ``batched=False``.

    Returns:
        An ``AdjointReport`` whose fields are zeros ``[batch]``, or scalar zeros, float32.

    Examples:
        >>> import jax, jax.numpy as jnp, deq_jax
        >>> def loss(x, report):
        ...     sol = deq_jax.fixed_point(lambda z, x: 0.5 * jnp.tanh(z) + x, jnp.zeros((2, 3)), x, report=report)
        ...     return jnp.sum(sol.value)
        >>> report = jax.grad(loss, argnums=1)(jnp.ones((2, 3)), deq_jax.adjoint_report(2))
        >>> bool(jnp.all(report.residual <= 1e-2))
        True
    """
    zeros = jnp.zeros(() if batch is None else (batch,), jnp.float32)
    return AdjointReport(zeros, zeros, zeros)


def implicit(solver: Solver) -> Adjoint:
    """Solve the adjoint equation as a fixed point with ``solver``, to that solver's own tolerance; exact.

    Args:
        solver: any callable ``(f, z0) -> Solution``, usually ``functools.partial(anderson, tol=...)``.

    Returns:
        An adjoint, to hand to [`deq_jax.fixed_point`][].

    Raises:
        TypeError: ``solver`` is no callable ``(f, z0)``.

    The solve starts from ``g = y``, and in units of ``y``: cotangents of a mean loss may be too small to square.

    Source: the chapter, "Implicit differentiation of equilibrium layers".
    """
    check_solver("solver", solver)

    def solve(transposed: Transposed, y: PyTree, fixed_point: Callable[..., Solution]) -> Solution:
        flat = flatten_samples(y)
        with summed_over(axes_within(transposed, y)):
            unit = sample_unit(flat)
        scaled = restore_samples(sample_scale(flat, 1 / unit), y)
        f, x = _plus_cotangent(transposed), scaled
        if isinstance(transposed, Narrowable):
            f, x = Narrowable(f, lambda rows: _plus_cotangent(transposed.for_rows(rows))), PerSample(scaled)
        solution = fixed_point(f, scaled, x, solver=solver)
        return solution._replace(value=restore_samples(sample_scale(flatten_samples(solution.value), unit), y))

    return solve


def _plus_cotangent(transposed: Transposed) -> Callable[[PyTree, PyTree], PyTree]:
    return lambda g, y: jax.tree.map(jnp.add, transposed(g), y)


def direct() -> Adjoint:
    """Solve ``(I − J)ᵀ g = y`` densely, one matrix a sample; exact, for small states and for tests.

    Costs a vector-Jacobian product for every number in a sample's state, and a matrix of that size squared. A sample
    whose solve is not finite, since a pivot is zero, has no gradient and is reported as DIVERGED; one whose matrix is
    merely close to singular has a large one.

    Raises:
        ValueError: in the backward pass, where a sample has more than ``DENSE_LIMIT`` numbers.

    Source: the chapter, "Implicit differentiation of equilibrium layers", the direct inversion.
    """

    def solve(transposed: Transposed, y: PyTree, fixed_point: Callable[..., Solution]) -> Solution:
        del fixed_point
        if shared := axes_within(transposed, y):
            raise ValueError(
                f"direct() needs all of a sample on one device, but its parts lie along the mesh axes {shared}, over "
                "which f communicates. Use implicit(solver) instead."
            )
        flat, unravel = _as_one_matrix(y)
        batch, size = flat.shape
        if size > DENSE_LIMIT:
            raise ValueError(
                f"direct() would form a dense {size} × {size} Jacobian for each of {batch} samples; "
                f"the limit is {DENSE_LIMIT}. Use implicit(solver) instead."
            )
        basis = jnp.broadcast_to(jnp.eye(size, dtype=flat.dtype)[:, None], (size, batch, size))
        basis = varying_like(basis, flat)
        columns = jax.vmap(lambda g: _as_one_matrix(transposed(unravel(g)))[0])(basis)
        matrix = jnp.eye(size, dtype=flat.dtype)[None] - jnp.moveaxis(columns, 0, 2)
        wide = accumulation_dtype(y)  # LAPACK knows no half precision
        solved = jnp.linalg.solve(matrix.astype(wide), flat[..., None].astype(wide))[..., 0]
        g = unravel(solved.astype(flat.dtype))
        mapped = jax.tree.map(jnp.add, transposed(g), y)
        residual = relative_residual(flatten_samples(mapped), flatten_samples(g)).astype(jnp.float32)
        is_finite = jnp.isfinite(residual)
        zero = flatten_samples(jax.tree.map(jnp.zeros_like, g))
        return Solution(
            restore_samples(sample_where(is_finite, flatten_samples(g), zero), g),
            jnp.where(is_finite, residual, jnp.inf),
            jnp.full((batch,), size + 1, jnp.int32),
            jnp.where(is_finite, Status.CONVERGED, Status.DIVERGED).astype(jnp.int8),
        )

    return solve


def or_nan(adjoint: Adjoint) -> Adjoint:
    """``adjoint``, but with NaN for the gradient of every sample whose adjoint solve did not converge.

    An adjoint solve that falls short gives a wrong gradient, which is used all the same, and only a report tells. Here
    its cotangent ``g`` is NaN, and so is what ``g`` reaches: all of the sample's own gradients, and those of what it
    shares with others, as parameters. Solves for derivatives of higher order are held to the same.

    Args:
        adjoint: a way of meeting the adjoint equation that measures how well it did: [`deq_jax.implicit`][],
            [`deq_jax.krylov`][], [`deq_jax.direct`][], or one of your own, whose statuses are then believed.

    Returns:
        An adjoint, to hand to [`deq_jax.fixed_point`][].

    Raises:
        TypeError: ``adjoint`` is no adjoint.
        ValueError: it is [`deq_jax.phantom`][] or [`deq_jax.jacobian_free`][], which measure nothing.

    Examples:
        >>> import functools, jax, jax.numpy as jnp, deq_jax
        >>> x = jnp.ones((2, 1))
        >>> def total(x, adjoint):
        ...     f = lambda z, x: jnp.array([[0.1], [0.9]]) * z + x
        ...     return deq_jax.fixed_point(f, jnp.zeros((2, 1)), x, adjoint=adjoint).value.sum()
        >>> short = implicit(functools.partial(deq_jax.forward_iteration, max_iter=4))  # 1 / (1 - rate) is right
        >>> print(jax.grad(total)(x, short).ravel().round(1), jax.grad(total)(x, or_nan(short)).ravel().round(1))
        [1.1 3.4] [1.1 nan]

    Source: this library's.
    """
    if getattr(check_adjoint(adjoint), "measures_nothing", False):
        raise ValueError(
            "or_nan takes an adjoint that measures how well it did, and phantom(steps) and jacobian_free() measure "
            "nothing: every gradient would be NaN. Use them without it, or implicit(solver), krylov() or direct()."
        )

    @functools.wraps(adjoint)
    def solve(transposed: Transposed, y: PyTree, fixed_point: Callable[..., Solution]) -> Solution:
        def higher(*args: Any, solver: Solver = anderson, adjoint: Adjoint | None = None, **settings: Any) -> Solution:
            adjoint = or_nan(implicit(solver)) if adjoint is None else adjoint
            return fixed_point(*args, solver=solver, adjoint=adjoint, **settings)

        solution = adjoint(transposed, y, higher)
        flat = flatten_samples(solution.value)
        nan = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), flat)
        g = sample_where(solution.status == Status.CONVERGED, flat, nan)
        return solution._replace(value=restore_samples(g, solution.value))

    return solve


def _as_one_matrix(z: PyTree) -> tuple[Float[Array, "batch n"], Callable[[Float[Array, "batch n"]], PyTree]]:
    """All leaves of a state side by side, and the way back."""
    leaves, structure = jax.tree.flatten(flatten_samples(z))
    ends = [sum(leaf.shape[1] for leaf in leaves[: i + 1]) for i in range(len(leaves) - 1)]
    dtype = jnp.result_type(*leaves)

    def unravel(matrix: Float[Array, "batch n"]) -> PyTree:
        parts = [part.astype(leaf.dtype) for part, leaf in zip(jnp.split(matrix, ends, axis=1), leaves, strict=True)]
        return restore_samples(jax.tree.unflatten(structure, parts), z)

    return jnp.concatenate([leaf.astype(dtype) for leaf in leaves], axis=1), unravel
