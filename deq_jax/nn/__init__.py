"""The Flax NNX side: cells, the layer that solves for their equilibrium, and image classifiers around it."""

from deq_jax.nn.cells import FeedForwardCell, PreActivationCell, ResNetCell
from deq_jax.nn.classifier import DEQClassifier
from deq_jax.nn.deq import DEQ, prepared
from deq_jax.nn.image_classifier import Head, ImageClassifier, Layers
from deq_jax.nn.layers import BatchNorm, Conv, GroupNorm
from deq_jax.nn.pooling import average_pool, max_pool
from deq_jax.nn.stem import Stage, Stem
from deq_jax.nn.weight_normalisation import NormalisedConv

__all__ = [
    "DEQ",
    "BatchNorm",
    "Conv",
    "DEQClassifier",
    "FeedForwardCell",
    "GroupNorm",
    "Head",
    "ImageClassifier",
    "Layers",
    "NormalisedConv",
    "PreActivationCell",
    "ResNetCell",
    "Stage",
    "Stem",
    "average_pool",
    "max_pool",
    "prepared",
]
