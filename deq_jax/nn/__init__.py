"""The Flax side: cells in NNX, the layer that solves for their equilibrium, and image classifiers around it.

``nn.DEQ`` wraps an NNX cell, ``nn.linen.DEQ`` a Linen one.
"""

try:
    import flax  # noqa: F401
except ImportError as error:
    raise ImportError("deq_jax.nn needs Flax: pip install 'deq_jax[flax]'.") from error

from deq_jax.nn import linen
from deq_jax.nn.cells.corrected_gradient import CorrectedGradientCell
from deq_jax.nn.cells.feed_forward import FeedForwardCell
from deq_jax.nn.cells.reasoning import MixingCell, RecallCell, RMSNorm
from deq_jax.nn.cells.residual import InjectionCell, PreActivationCell, ResNetCell
from deq_jax.nn.classifiers.chapter import DEQClassifier
from deq_jax.nn.classifiers.image_classifier import Head, ImageClassifier, Layers
from deq_jax.nn.classifiers.stem import Stage, Stem
from deq_jax.nn.deq import DEQ
from deq_jax.nn.layers.conv import Conv
from deq_jax.nn.layers.dropout import DropoutMasks
from deq_jax.nn.layers.normalisation import BatchNorm, GroupNorm
from deq_jax.nn.layers.pooling import average_pool, max_pool
from deq_jax.nn.layers.standardised import Standardised
from deq_jax.nn.layers.weight_normalisation import NormalisedConv, NormalisedLinear
from deq_jax.nn.monotone import (
    ConvMonotoneCell,
    DenseMonotoneCell,
    LinearHead,
    TiersMonotoneCell,
    certified_radius,
    lipschitz_bound,
)
from deq_jax.nn.multiscale import MultiscaleCell, MultiscaleHead, MultiscaleStem
from deq_jax.nn.sequence import Memory, TransformerCell

__all__ = [
    "DEQ",
    "BatchNorm",
    "Conv",
    "ConvMonotoneCell",
    "CorrectedGradientCell",
    "DEQClassifier",
    "DenseMonotoneCell",
    "DropoutMasks",
    "FeedForwardCell",
    "GroupNorm",
    "Head",
    "ImageClassifier",
    "InjectionCell",
    "Layers",
    "LinearHead",
    "Memory",
    "MixingCell",
    "MultiscaleCell",
    "MultiscaleHead",
    "MultiscaleStem",
    "NormalisedConv",
    "NormalisedLinear",
    "PreActivationCell",
    "RMSNorm",
    "RecallCell",
    "ResNetCell",
    "Stage",
    "Standardised",
    "Stem",
    "TiersMonotoneCell",
    "TransformerCell",
    "average_pool",
    "certified_radius",
    "linen",
    "lipschitz_bound",
    "max_pool",
]
