"""The Flax NNX side: cells, the layer that solves for their equilibrium, and the chapter's model."""

from deq_jax.nn.cells import FeedForwardCell, ResNetCell
from deq_jax.nn.classifier import DEQClassifier
from deq_jax.nn.deq import DEQ
from deq_jax.nn.layers import BatchNorm, Conv, GroupNorm

__all__ = ["DEQ", "BatchNorm", "Conv", "DEQClassifier", "FeedForwardCell", "GroupNorm", "ResNetCell"]
