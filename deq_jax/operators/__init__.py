"""Linear maps ``W`` between states for which ``I − W`` is strongly monotone, and maps ``z ↦ prox(W z + b)`` of them.

An ``Operator`` can be applied, transposed, and inverted once for many solves; ``Dense`` does it block by block,
``Circulant`` frequency by frequency, ``Tiers`` by substitution from one resolution to the next.
"""

from deq_jax.operators.circulant import Circulant
from deq_jax.operators.dense import Dense
from deq_jax.operators.monotone_map import MonotoneMap
from deq_jax.operators.operator import Operator
from deq_jax.operators.tiers import Tiers

__all__ = ["Circulant", "Dense", "MonotoneMap", "Operator", "Tiers"]
