"""The Flax side: cells in NNX, the layer that solves for their equilibrium, and the chapter's model.

``nn.DEQ`` wraps an NNX cell, ``nn.linen.DEQ`` a Linen one.
"""

from deq_jax.nn import linen
from deq_jax.nn.cells import FeedForwardCell, ResNetCell
from deq_jax.nn.classifier import DEQClassifier
from deq_jax.nn.deq import DEQ
from deq_jax.nn.layers import BatchNorm, Conv, GroupNorm

__all__ = ["DEQ", "BatchNorm", "Conv", "DEQClassifier", "FeedForwardCell", "GroupNorm", "ResNetCell", "linen"]
