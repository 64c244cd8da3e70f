"""The adjoint equation by GMRES, from lineax: for Jacobians on which fixed-point iterations crawl."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, PyTree

from deq_jax.gradients.adjoint import Adjoint, implicit
from deq_jax.gradients.implicit_function import hoist
from deq_jax.settings import check_positive, whole_number
from deq_jax.solution import Solution, Status
from deq_jax.states.norms import relative_residual, sample_unit
from deq_jax.states.trees import (
    Matrices,
    accumulation_dtype,
    flatten_function,
    flatten_samples,
    restore_samples,
    sample_scale,
    sample_where,
)


def krylov(*, tol: float = 1e-2, restart: int = 10, max_iter: int = 100) -> Adjoint:
    """Solve the adjoint equation ``(I − J)ᵀ g = y`` by restarted GMRES, each sample on its own; exact.

    It needs no contraction: where the spectral radius is 1 or more, or a few eigenvalues stand apart, it
    converges when fixed-point iterations do not. It works in whole cycles of ``restart + 1`` vector-Jacobian products,
    two cycles at least, so that on a well-behaved cell [`deq_jax.implicit`][] is cheaper. Needs lineax:
    ``pip install 'deq_jax[krylov]'``.

    Args:
        tol: relative residual ``‖Jᵀg + y − g‖₂ / ‖Jᵀg + y‖₂`` at which a sample has converged.
        restart: dimension of the Krylov space of one cycle, at least 1; memory is that of so many states.
        max_iter: vector-Jacobian products at most, rounded up to whole cycles.

    Returns:
        An adjoint for [`deq_jax.fixed_point`][]. The iterations that it reports are whole cycles'; a cycle that
        exhausts its space stops earlier, so they are an upper bound.

    Raises:
        ImportError: lineax is not installed.
        ValueError: a setting is not positive.
        NotImplementedError: in the backward pass, within ``jax.shard_map``.

    Source: Saad and Schultz, "GMRES: a generalized minimal residual algorithm", 1986.
    """
    check_positive("tol", tol)
    restart, max_iter = whole_number("restart", restart), whole_number("max_iter", max_iter)
    try:
        import lineax
    except ImportError as error:
        raise ImportError("krylov() needs lineax: pip install 'deq_jax[krylov]'.") from error
    cycles = -(-max_iter // (restart + 1))
    # lineax measures by components and asks for two cycles in agreement; a tenth makes the norm's tolerance safe.
    method = lineax.GMRES(rtol=0.1 * tol, atol=0.0, restart=restart, max_steps=1 + cycles, stagnation_iters=1 + cycles)

    def solve_affine(f: Callable[[PyTree], PyTree], z0: PyTree) -> Solution:
        """Solve ``z = f(z)`` for an ``f`` that is affine in ``z``; starts from zero whatever ``z0`` is."""
        if jax.sharding.get_abstract_mesh().manual_axes:
            raise NotImplementedError(
                "krylov() does not work within jax.shard_map, whose arrays lineax refuses. Use implicit(solver), or "
                "leave the devices to jax.jit."
            )
        narrow, wide = flatten_samples(z0), accumulation_dtype(z0)

        def affine(z: Matrices) -> Matrices:
            """``f`` on float32 or better: GMRES's small systems know no half precision, and no mixed one."""
            fz = flatten_function(f, z0)(jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), z, narrow))
            return jax.tree.map(lambda leaf: leaf.astype(wide), fz)

        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, wide), narrow)
        offset = affine(zero)
        # In units of the offset the vectors handed to f are as large as what f adds, and no digits are lost.
        unit = sample_unit(offset)

        def residual(v: Matrices) -> Matrices:
            """``(I − A) v`` where ``f(z) = A z + offset``."""
            mapped = affine(sample_scale(v, unit))
            return jax.tree.map(
                lambda v, fv: v - fv, v, sample_scale(jax.tree.map(jnp.subtract, mapped, offset), 1 / unit)
            )

        solved, steps = _per_sample(lineax, method, residual, sample_scale(offset, 1 / unit))
        z = sample_scale(solved, unit)
        measured = relative_residual(affine(z), z)
        finite = jnp.isfinite(measured)
        status = jnp.where(measured <= tol, Status.CONVERGED, jnp.where(finite, Status.MAX_ITER, Status.DIVERGED))
        return Solution(
            restore_samples(
                jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), sample_where(finite, z, zero), narrow), z0
            ),
            jnp.where(finite, measured, jnp.inf).astype(jnp.float32),
            # The offset, a first residual, whole cycles, and the last residual.
            (3 + (steps - 1) * (restart + 1)).astype(jnp.int32),
            status.astype(jnp.int8),
        )

    return implicit(solve_affine)


def _per_sample(
    lineax: Any, method: Any, linear: Callable[[Matrices], Matrices], b: Matrices
) -> tuple[Matrices, Array]:
    """Solve ``linear(v) = b`` with a method that knows one sample, by mapping it over the batch."""
    # The rule of a custom_vmap may not close over tracers.
    apply, closure = hoist(linear, b, ())

    @custom_vmap
    def one_sample(v: PyTree, closure: list) -> PyTree:
        # Never evaluated: only the batched rule below is. It gives the operator its form.
        del closure
        return v

    @one_sample.def_vmap
    def batched(axis_size: int, in_batched: list, v: Matrices, closure: list) -> tuple[Matrices, Any]:
        del axis_size
        return apply(v, (), closure), in_batched[0]

    def solve(b: PyTree) -> tuple[PyTree, Array]:
        form = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), b)
        operator = lineax.FunctionLinearOperator(lambda v: one_sample(v, closure), form)
        result = lineax.linear_solve(operator, b, method, throw=False)
        return result.value, result.stats["num_steps"]

    return jax.vmap(solve)(b)
