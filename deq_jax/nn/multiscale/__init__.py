"""Equilibria of several resolutions at once: each has a residual block, and hears of all others in every evaluation."""

from deq_jax.nn.multiscale.cell import Injection, MultiscaleCell
from deq_jax.nn.multiscale.head import MultiscaleHead
from deq_jax.nn.multiscale.stem import MultiscaleStem

__all__ = ["Injection", "MultiscaleCell", "MultiscaleHead", "MultiscaleStem"]
