"""One sample's small symmetric system, solved without a library."""

import jax
import jax.numpy as jnp
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
    lower: list[list[Array]] = []
    pivots: list[Array] = []
    y: list[Array] = []
    for i in range(n):
        # Row i of L D, whose entries become those of L once they are divided by the pivots.
        row: list[Array] = []
        for j in range(i):
            row.append(matrix[i, j] - sum(a * b for a, b in zip(row, lower[j], strict=False)))
        lower.append([entry / pivot for entry, pivot in zip(row, pivots, strict=True)])
        pivots.append(matrix[i, i] - sum(a * b for a, b in zip(row, lower[i], strict=True)))
        y.append(b[i] - sum(a * b for a, b in zip(lower[i], y, strict=True)))
    x = [entry / pivot for entry, pivot in zip(y, pivots, strict=True)]
    for i in reversed(range(n)):
        x[i] = x[i] - sum(lower[j][i] * x[j] for j in range(i + 1, n))
    return jnp.stack(x)
