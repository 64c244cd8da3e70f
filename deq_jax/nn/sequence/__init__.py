"""Equilibria of sequences: a causal Transformer's layer as a cell, and what it remembers of the segment before."""

from deq_jax.nn.sequence.cell import Injection, TransformerCell
from deq_jax.nn.sequence.memory import Memory

__all__ = ["Injection", "Memory", "TransformerCell"]
