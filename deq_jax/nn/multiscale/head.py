"""From all resolutions of an equilibrium to logits."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deq_jax.nn.layers.conv import SMALL, Conv, Resized, uniform_by_fan_in
from deq_jax.nn.layers.convolution import Image
from deq_jax.nn.layers.normalisation import BatchNorm
from deq_jax.operators.tiers import Images

EXPANSION = 4
"""How many times as many channels a bottleneck ends with as it has within."""


class Bottleneck(nnx.Module):
    """Kernels of 1, 3 and 1 pixels, added to one of a single pixel: ``ReLU(norm(W z) + branch(z))``.

    The norms of the branch, batch norms as the other, have nothing to learn.

    Args:
        channels: channels of the images ``[batch, height, width, channels]``.
        inner_channels: channels within; four times as many come out.
        rngs: where the initial values are drawn from, N(0, 0.01²).

    Source: He et al., "Deep residual learning for image recognition", 2016, figure 5.
    """

    def __init__(self, channels: int, inner_channels: int, *, rngs: nnx.Rngs):
        out = EXPANSION * inner_channels
        conv = functools.partial(Conv, use_bias=False, kernel_init=SMALL, rngs=rngs)
        self.convs = nnx.List(
            [conv(channels, inner_channels, 1), conv(inner_channels, inner_channels, 3), conv(inner_channels, out, 1)]
        )
        widths = (inner_channels, inner_channels, out)
        self.norms = nnx.List([BatchNorm(width, is_affine=False) for width in widths])
        # Where nothing changes in number, nothing is done to what is added.
        self.shortcut = conv(channels, out, 1) if channels != out else None
        self.shortcut_norm = BatchNorm(out) if channels != out else None

    def __call__(self, z: Image) -> Resized:
        """Images of as many pixels."""
        y: Array = z
        for k, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(jax.nn.relu(y) if k else y))
        beside = z if self.shortcut is None or self.shortcut_norm is None else self.shortcut_norm(self.shortcut(z))
        return jax.nn.relu(y + beside)


class Layer(nnx.Module):
    """``ReLU(norm(W ∗ y + b))``."""

    def __init__(self, channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, rngs: nnx.Rngs):
        self.conv = Conv(channels, out_channels, kernel_size, stride=stride, kernel_init=SMALL, rngs=rngs)
        self.norm = BatchNorm(out_channels)

    def __call__(self, y: Image) -> Resized:
        """Images of as many pixels, or of half the sides by a stride of 2."""
        return jax.nn.relu(self.norm(self.conv(y)))


class MultiscaleHead(nnx.Module):
    """A bottleneck for each scale, added up from the finest to the coarsest; then logits ``[batch, num_classes]``.

    What has been added up goes on by a convolution of stride 2. At the end stand a convolution of single pixels, the
    mean over the image, and a linear map.

    Args:
        channels: channels of the scales of the state, the finest first.
        num_classes: classes to tell apart.
        bottlenecks: channels within the bottleneck of each scale.
        features: channels of the last convolution.
        rngs: where the initial values are drawn from: kernels from N(0, 0.01²), the linear map as PyTorch's.

    Raises:
        ValueError: there are not as many ``bottlenecks`` as ``channels``; when called: the state has other scales.

    Source: Bai, Koltun and Kolter, "Multiscale deep equilibrium models", 2020, the authors' code; after Wang et al.,
    "Deep high-resolution representation learning for visual recognition", 2019.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        bottlenecks: Sequence[int],
        features: int,
        rngs: nnx.Rngs,
    ):
        if len(bottlenecks) != len(channels):
            raise ValueError(
                f"the head has a bottleneck for each scale: got {len(bottlenecks)} of them for {len(channels)} scales."
            )
        self.channels = tuple(channels)
        pairs = zip(channels, bottlenecks, strict=True)
        self.bottlenecks = nnx.List([Bottleneck(*pair, rngs=rngs) for pair in pairs])
        widths = [EXPANSION * width for width in bottlenecks]
        self.downs = nnx.List([Layer(*pair, 3, stride=2, rngs=rngs) for pair in itertools.pairwise(widths)])
        self.last = Layer(widths[-1], features, 1, rngs=rngs)
        uniform = uniform_by_fan_in(features)
        self.linear = nnx.Linear(features, num_classes, kernel_init=uniform, bias_init=uniform, rngs=rngs)

    def __call__(self, z: Images) -> Float[Array, "batch num_classes"]:
        """Logits of a state, ``[batch, height / 2^i, width / 2^i, channels[i]]`` of every scale."""
        if tuple(image.shape[-1] for image in z) != self.channels:
            raise ValueError(
                f"the head takes scales of {self.channels} channels, got {[list(image.shape) for image in z]}."
            )
        first, *coarser = [bottleneck(image) for bottleneck, image in zip(self.bottlenecks, z, strict=True)]
        for down, image in zip(self.downs, coarser, strict=True):
            first = image + down(first)
        return self.linear(jnp.mean(self.last(first), axis=(1, 2)))
