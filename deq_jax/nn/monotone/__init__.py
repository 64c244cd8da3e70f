"""Monotone cells, whose equilibrium exists and is the only one whatever their weights, and what that certifies."""

from deq_jax.nn.monotone.cells import ConvMonotoneCell, DenseMonotoneCell
from deq_jax.nn.monotone.certificate import certified_radius, lipschitz_bound
from deq_jax.nn.monotone.head import LinearHead
from deq_jax.nn.monotone.tiers import TiersMonotoneCell

__all__ = [
    "ConvMonotoneCell",
    "DenseMonotoneCell",
    "LinearHead",
    "TiersMonotoneCell",
    "certified_radius",
    "lipschitz_bound",
]
