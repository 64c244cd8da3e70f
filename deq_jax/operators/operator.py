"""What solvers by splitting ask of a linear map."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, PyTree

from deq_jax.settings import Scalar

Held = Any
"""A field of an operator, of the type that its class tells: JAX also puts placeholders there, which are of none."""


@runtime_checkable
class Operator(Protocol):
    """A linear map ``W`` of states ``[batch, ...]``, each sample on its own, with ``⟨z, (I − W) z⟩ ≥ m ‖z‖²``, m > 0.

    A pytree of arrays, so that it can be an argument of a differentiable function.
    """

    @property
    def m(self) -> Scalar:
        """How monotone ``I − W`` is."""

    def __call__(self, z: PyTree) -> PyTree:
        """``W z``."""

    def transposed(self) -> "Operator":
        """``Wᵀ``."""

    def resolvent(self, alpha: Scalar) -> Callable[[PyTree], PyTree]:
        """``v ↦ (I + alpha (I − W))⁻¹ v``, formed once, to be applied many times."""

    def norm(self) -> Float[Array, ""]:
        """An upper bound ``L`` of the spectral norm ``‖I − W‖₂``, a few percent above it."""
