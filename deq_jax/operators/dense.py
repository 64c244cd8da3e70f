"""A dense matrix."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deq_jax.operators.matrices import accretive_inverse, from_identity, norm_bound, product
from deq_jax.operators.operator import Held
from deq_jax.settings import Scalar

Vectors = Float[Array, "batch n"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["W", "m"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Dense:
    """A matrix ``W`` with ``I − (W + Wᵀ)/2 ⪰ m I`` as an operator on states ``[batch, n]``.

    Args:
        W: ``[n, n]``.
        m: how monotone it is, positive.

    Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, section 3.1.
    """

    W: Held
    m: Held

    def __call__(self, z: Vectors) -> Vectors:
        """``W z`` of every sample."""
        return product(z, self.W.T)

    def transposed(self) -> "Dense":
        """``Wᵀ``."""
        return Dense(self.W.T, self.m)

    def resolvent(self, alpha: Scalar) -> Callable[[Vectors], Vectors]:
        """``v ↦ (I + alpha (I − W))⁻¹ v``, by an inverse that is made once, block by block."""
        monotone = from_identity(self.W)
        inverse = accretive_inverse(jnp.eye(len(monotone), dtype=monotone.dtype) + alpha * monotone)
        return lambda v: product(v, inverse.T)

    def norm(self) -> Float[Array, ""]:
        """An upper bound of ``‖I − W‖₂``."""
        return norm_bound(from_identity(self.W))
