"""What a model's solves have come to, sample by sample: all evaluations, the largest residual, whether all converged.

What was not measured is infinite, as where there was no solve: no NaN, which JAX can be told to take for a fault.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from deq_jax.gradients.adjoint import AdjointReport
from deq_jax.solution import Solution, Status


class Solved(NamedTuple):
    """Of all equilibria of a sample."""

    iterations: Float[Array, " batch"]
    residual: Float[Array, " batch"]
    converged: Float[Array, " batch"]
    """1 where all solves reached their tolerance, 0 where one did not."""


def forward(solutions: Sequence[Solution], batch: int) -> Solved:
    """What the forward solves have come to. A result without a residual, as of ordinary layers, has not converged."""
    if not solutions:
        return _nothing(batch)
    iterations, residual, status = _joined(solutions)
    is_measured = jnp.isfinite(residual) | (status != Status.CONVERGED)
    return Solved(iterations, residual, _share(status, is_measured))


def backward(reports: Sequence[AdjointReport], batch: int) -> Solved:
    """What the adjoint solves have; reports that came back as the zeros they were have seen no solve."""
    if not reports:
        return _nothing(batch)
    iterations, residual, status = _joined(reports)
    is_made = (iterations > 0) | jnp.isinf(residual)
    is_measured = jnp.isfinite(residual) | (status == Status.DIVERGED)
    return Solved(
        jnp.where(is_made, iterations, jnp.inf),
        jnp.where(is_made, residual, jnp.inf),
        _share(status, is_made & is_measured),
    )


def _joined(solves: Sequence[Solution] | Sequence[AdjointReport]) -> tuple[Array, Array, Array]:
    iterations = sum(solve.iterations.astype(jnp.float32) for solve in solves)
    # A status is the greater the worse it is.
    residual, status = (
        functools.reduce(jnp.maximum, values)
        for values in ([solve.residual for solve in solves], [solve.status for solve in solves])
    )
    return jnp.asarray(iterations), residual, status


def _share(status: Array, is_measured: Bool[Array, " batch"]) -> Float[Array, " batch"]:
    return jnp.where(is_measured, (status == Status.CONVERGED).astype(jnp.float32), jnp.inf)


def _nothing(batch: int) -> Solved:
    unmeasured = jnp.full(batch, jnp.inf, jnp.float32)
    return Solved(unmeasured, unmeasured, unmeasured)
