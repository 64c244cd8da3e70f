"""What every resolution hears of the others."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from deq_jax.nn.layers.conv import SMALL, Conv, Resized
from deq_jax.nn.layers.convolution import Image
from deq_jax.nn.layers.normalisation import GroupNorm
from deq_jax.nn.layers.weight_normalisation import NormalisedConv
from deq_jax.operators.tiers import Images


class Down(nnx.Module):
    """To a coarser scale: a convolution of stride 2 and a norm for every halving, ReLU between them."""

    def __init__(self, widths: Sequence[int], *, num_groups: int, param_dtype: DTypeLike, rngs: nnx.Rngs):
        convs = [
            Conv(*pair, stride=2, use_bias=False, kernel_init=SMALL, param_dtype=param_dtype, rngs=rngs)
            for pair in itertools.pairwise(widths)
        ]
        self.convs = nnx.List(convs)
        self.norms = nnx.List([GroupNorm(width, num_groups, param_dtype=param_dtype) for width in widths[1:]])

    def __call__(self, y: Image) -> Resized:
        """Images of half the sides, as often."""
        for k, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(jax.nn.relu(y) if k else y))
        return y


class Up(nnx.Module):
    """To a finer scale: a convolution of single pixels and a norm; then every pixel becomes a square of them."""

    def __init__(
        self, channels: int, out_channels: int, factor: int, *, num_groups: int, param_dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.factor = factor
        self.conv = Conv(
            channels, out_channels, 1, use_bias=False, kernel_init=SMALL, param_dtype=param_dtype, rngs=rngs
        )
        self.norm = GroupNorm(out_channels, num_groups, param_dtype=param_dtype)

    def __call__(self, y: Image) -> Resized:
        """Images of ``factor`` times the sides."""
        return enlarged(self.norm(self.conv(y)), self.factor)


def enlarged(y: Image, factor: int) -> Resized:
    """Every pixel ``factor`` × ``factor`` times: the nearest one."""
    batch, height, width, channels = y.shape
    squares = jnp.broadcast_to(y[:, :, None, :, None], (batch, height, factor, width, factor, channels))
    return squares.reshape(batch, height * factor, width * factor, channels)


class Fusion(nnx.Module):
    """Every scale the sum of all, ``sᵢ = Σⱼ Pᵢⱼ(yⱼ)``, and of that ``norm(Wᵢ ∗ ReLU(sᵢ))``.

    ``Pᵢᵢ`` changes nothing. ``Wᵢ`` are normalised kernels of single pixels, and the last norms, of half as many groups,
    have nothing to learn.

    Args:
        channels: channels of the scales, the finest first.
        num_groups: groups of each group normalisation; must divide all of them.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from: kernels between scales from N(0, 0.01²), others as PyTorch's.

    Source: Bai, Koltun and Kolter, "Multiscale deep equilibrium models", 2020, and the authors' code.
    """

    def __init__(self, channels: Sequence[int], *, num_groups: int, param_dtype: DTypeLike, rngs: nnx.Rngs):
        def path(source: int, target: int) -> Down | Up:
            if source > target:
                return Up(
                    channels[source],
                    channels[target],
                    2 ** (source - target),
                    num_groups=num_groups,
                    param_dtype=param_dtype,
                    rngs=rngs,
                )
            widths = [*[channels[source]] * (target - source), channels[target]]
            return Down(widths, num_groups=num_groups, param_dtype=param_dtype, rngs=rngs)

        scales = range(len(channels))
        self.paths = nnx.List([nnx.List([path(j, i) for j in scales if j != i]) for i in scales])
        self.convs = nnx.List(
            [
                NormalisedConv(width, width, 1, max_gain=None, std=None, param_dtype=param_dtype, rngs=rngs)
                for width in channels
            ]
        )
        self.norms = nnx.List([GroupNorm(width, max(num_groups // 2, 1), is_affine=False) for width in channels])

    def __call__(self, y: Images) -> Images:
        """All scales, of one and the same batch."""
        return tuple(
            norm(conv(jax.nn.relu(self._heard(i, y))))
            for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True))
        )

    def _heard(self, target: int, y: Images) -> Image:
        others = [image for j, image in enumerate(y) if j != target]
        return y[target] + sum(path(image) for path, image in zip(self.paths[target], others, strict=True))
