"""``W = (1 − m) I − AᵀA + B − Bᵀ``: every ``W`` for which ``I − W`` is monotone by ``m``, and no other.

For ``I − (W + Wᵀ)/2 = m I + AᵀA``. The functions make operators of the matrices or kernels ``A`` and ``B``.

Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, proposition 1.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from deq_jax.operators.circulant import Circulant, Kernel, symbol
from deq_jax.operators.dense import Dense
from deq_jax.operators.matrices import adjoint_of, product
from deq_jax.operators.tiers import Link, Tiers
from deq_jax.settings import check_positive

Kernels = Sequence[Float[Array, "_ _ _ _"]]
"""One a tier, of channels of its own."""


def dense(A: Float[Array, "n n"], B: Float[Array, "n n"], m: float) -> Dense:
    """The matrix ``W`` itself."""
    return Dense(_combined([A], B, m), m)


def circulant(A: Kernel, B: Kernel, m: float, shape: tuple[int, int]) -> Circulant:
    """``A`` and ``B`` convolve images of this height and width around their edges."""
    return Circulant(_combined([symbol(A, shape)], symbol(B, shape), m), m)


def tiers(A: Kernels, S: Kernels, B: Kernels, m: float, shapes: Sequence[tuple[int, int]]) -> Tiers:
    """Images of several resolutions: ``A`` has convolutions ``Aᵢ`` on its diagonal and strided ones ``Sᵢ`` below it.

    Of ``B`` the part beside the diagonal is chosen such that it cancels that of ``AᵀA`` from coarse to fine, and
    doubles it from fine to coarse. What is left is triangular in tiers.
    """
    last = len(A) - 1
    phases = [1 if i == last else 2 for i in range(len(A))]
    squares = [symbol(a, shape, phases=p) for a, shape, p in zip(A, shapes, phases, strict=True)]
    strided = [symbol(s, shape, phases=2, stride=2) for s, shape in zip(S, shapes[:-1], strict=True)]
    own = tuple(
        Circulant(
            _combined([squares[i], *strided[i : i + 1]], symbol(B[i], shapes[i], phases=phases[i]), m), m, phases[i]
        )
        for i in range(len(A))
    )
    links = tuple(
        Link(strided[i], squares[i + 1], (shapes[i][0] // 2, shapes[i][1] // 2), shapes[i + 1], phases[i + 1])
        for i in range(last)
    )
    return Tiers(own, links, m)


def check_monotone(m: float) -> None:
    """Raise a ValueError unless ``m`` is positive: only then there is one equilibrium, and one alone."""
    check_positive("m", m)


def _combined(
    A: Sequence[Inexact[Array, "*many _ n"]], B: Inexact[Array, "*many n n"], m: float
) -> Inexact[Array, "*many n n"]:
    """``W`` of matrices, one or many, ``A`` given as the parts that lie below one another."""
    squared = sum((product(adjoint_of(part), part) for part in A[1:]), product(adjoint_of(A[0]), A[0]))
    return (1 - m) * jnp.eye(B.shape[-1], dtype=B.dtype) - squared + B - adjoint_of(B)
