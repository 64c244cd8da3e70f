"""One sample's small symmetric system, without a library and without a reduction: written out, it is one kernel."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

WRITTEN_OUT = 8
"""Unknowns up to which the solve is written out: a library's call costs more than the few dozen multiplications."""


def solve_positive(matrix: Float[Array, "n n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solve ``matrix · x = b`` for a symmetric positive definite matrix; not finite where it is not one.

    By ``L D Lᵀ``, which takes no roots.

    Source: Golub and Van Loan, "Matrix computations", 4th edition, section 4.1.
    """
    n = len(b)
    if n > WRITTEN_OUT:
        return jax.scipy.linalg.solve(matrix, b, assume_a="pos")
    entries = lax.split(matrix.reshape(-1), [1] * (n * n))
    right = lax.split(b, [1] * n)
    lower: list[list[Array]] = []
    pivots: list[Array] = []
    y: list[Array] = []
    for i in range(n):
        # Row i of L D, whose entries become those of L once they are divided by the pivots.
        row: list[Array] = []
        for j in range(i):
            row.append(_without(entries[i * n + j], row, lower[j]))
        lower.append([lax.div(entry, pivot) for entry, pivot in zip(row, pivots, strict=True)])
        pivots.append(_without(entries[i * n + i], row, lower[i]))
        y.append(_without(right[i], lower[i], y))
    x = [lax.div(entry, pivot) for entry, pivot in zip(y, pivots, strict=True)]
    for i in reversed(range(n)):
        x[i] = _without(x[i], [lower[j][i] for j in range(i + 1, n)], x[i + 1 :])
    return lax.concatenate(x, 0)


def finite_or_zero(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """``x``, and zeros where any of its entries is not finite."""
    if len(x) > WRITTEN_OUT:
        return jnp.where(jnp.all(jnp.isfinite(x)), x, 0)
    entries = lax.split(x, [1] * len(x))
    is_finite = functools.reduce(lax.bitwise_and, [lax.is_finite(entry) for entry in entries])
    zero = lax.full((1,), 0, x.dtype)
    return lax.concatenate([lax.select(is_finite, entry, zero) for entry in entries], 0)


def quadratic(matrix: Float[Array, "n n"], b: Float[Array, " n"], x: Float[Array, " n"]) -> Float[Array, ""]:
    """``xᵀ · matrix · x − 2 bᵀ x``, for a symmetric matrix."""
    n = len(b)
    if n > WRITTEN_OUT:
        return x @ matrix @ x - 2 * (b @ x)
    entries, unknowns = lax.split(matrix.reshape(-1), [1] * (n * n)), lax.split(x, [1] * n)
    total, half = lax.full((1,), 0, x.dtype), lax.full((1,), 0.5, x.dtype)
    for i, right in enumerate(lax.split(b, [1] * n)):
        # Twice this, times xᵢ, is what i adds: 2 bᵢ − Mᵢᵢ xᵢ − 2 Σ Mᵢⱼ xⱼ over j < i.
        diagonal = lax.mul(half, entries[i * n + i])
        less = _without(right, [*entries[i * n : i * n + i], diagonal], unknowns[: i + 1])
        total = lax.sub(total, lax.mul(lax.add(less, less), unknowns[i]))
    return total[0]


def _without(entry: Array, a: Sequence[Array], b: Sequence[Array]) -> Array:
    """``entry − Σ aᵢ bᵢ``, over as many as both have; by ``lax``, whose operations are a fraction of the tracing."""
    for left, right in zip(a, b, strict=False):
        entry = lax.sub(entry, lax.mul(left, right))
    return entry
