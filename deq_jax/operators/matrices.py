"""Matrices, one or many: the inverse of those whose symmetric part is positive, and a bound of the spectral norm."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact

SMALL = 32
"""Blocks up to this size are inverted row by row: smaller ones would take longer to compile, larger ones to run."""
SQUARINGS = 3
"""Of a Gram matrix for a bound of its norm: n^(1/32) above it at most, 15% for 81 rows."""

Matrix = Inexact[Array, "*many n n"]


def product(a: Array, b: Array) -> Array:
    """``a @ b`` in full precision on every device."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def adjoint_of(a: Inexact[Array, "*many n k"]) -> Inexact[Array, "*many k n"]:
    """The conjugate transposes."""
    return jnp.conj(jnp.swapaxes(a, -1, -2))


def accretive_inverse(a: Matrix) -> Matrix:
    """The inverses of matrices whose symmetric parts ``(a + aᴴ)/2`` are positive definite.

    By halves and their Schur complements, which are such matrices again: so no pivots are needed, and all of it is
    matrix products. On a CPU a library's triangular solves took 30 times as long for many small matrices, and in a
    loop 100 times as long as a product by the inverse.
    """
    n = a.shape[-1]
    if n <= SMALL:
        return _row_by_row(a)
    half = n // 2
    (a11, a12), (a21, a22) = ((rows[..., :half], rows[..., half:]) for rows in (a[..., :half, :], a[..., half:, :]))
    inverse = accretive_inverse(a11)
    left = product(a21, inverse)
    complement = accretive_inverse(a22 - product(left, a12))
    right = product(product(inverse, a12), complement)
    return jnp.block([[inverse + product(right, left), -right], [-product(complement, left), complement]])


def _row_by_row(a: Matrix) -> Matrix:
    """Gauss and Jordan's elimination, in place."""

    def eliminate(k: Array, a: Matrix) -> Matrix:
        pivot = 1 / a[..., k, k]
        row, column = a[..., k, :] * pivot[..., None], a[..., :, k]
        a = a - column[..., :, None] * row[..., None, :]
        a = a.at[..., k, :].set(row).at[..., :, k].set(-column * pivot[..., None])
        return a.at[..., k, k].set(pivot)

    return lax.fori_loop(0, a.shape[-1], eliminate, a)


def norm_bound(a: Inexact[Array, "*many n k"]) -> Float[Array, ""]:
    """An upper bound of the largest spectral norm of all these matrices, close to it.

    ``‖a‖₂² = ‖G‖₂ ≤ ‖G^(2^k)‖_F^(1 / 2^k)`` of the Gram matrix ``G = aᴴa``, by ``k`` squarings.
    """
    largest = jnp.max(jnp.abs(a))
    unit = jnp.where(largest > 0, largest, 1)  # whose fourth power need not be a number
    a = a / unit
    gram = product(adjoint_of(a), a) if a.shape[-1] <= a.shape[-2] else product(a, adjoint_of(a))
    logarithm = jnp.zeros(gram.shape[:-2], gram.real.dtype)
    for k in range(SQUARINGS + 1):
        if k:
            gram = product(gram, gram)
        size = jnp.maximum(jnp.linalg.norm(gram, axis=(-2, -1)), jnp.finfo(logarithm.dtype).tiny)
        gram = gram / size[..., None, None]
        logarithm += jnp.log(size) / 2**k
    return unit * jnp.exp(jnp.max(logarithm) / 2)


def from_identity(a: Matrix) -> Matrix:
    """``I − a``."""
    return jnp.eye(a.shape[-1], dtype=a.dtype) - a
