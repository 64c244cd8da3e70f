"""A cell whose state is a tuple of images, each of half the sides of the one before."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from deq_jax.nn.layers.convolution import Image, Size
from deq_jax.nn.layers.dropout import Masks
from deq_jax.nn.layers.weight_normalisation import with_plain_layers
from deq_jax.nn.multiscale.block import Block
from deq_jax.nn.multiscale.fusion import Fusion
from deq_jax.nn.tiers import tier_sizes, zero_tiers
from deq_jax.operators.tiers import Images
from deq_jax.settings import whole_number


class Injection(NamedTuple):
    """What a [`deq_jax.nn.MultiscaleCell`][] takes beside its state: arrays with a row for each sample."""

    x: Image
    """Goes into the finest scale, ``[batch, height, width, channels]``."""
    masks: Masks = ()
    """A dropout mask for each scale, ``[batch, 1, 1, channels]``; none in an evaluation."""


def mask_shapes(channels: Sequence[int], batch: int) -> tuple[tuple[int, int, int, int], ...]:
    """Those of the dropout masks of scales of these channels: they drop whole channels."""
    return tuple((batch, 1, 1, width) for width in channels)


class MultiscaleCell(nnx.Module):
    r"""Residual blocks at several resolutions, and a fusion in which each hears of all others, ``f(z, x)``.

    $$y_i = \mathrm{norm}\big(\mathrm{ReLU}(z_i + \mathrm{norm}(m_i \cdot W_i' * \mathrm{ReLU}(\mathrm{norm}(W_i * z_i))
    + [i = 0]\, x))\big), \qquad
    f(z, x)_i = \mathrm{norm}\Big(V_i * \mathrm{ReLU}\big(y_i + \textstyle\sum_{j \ne i} P_{ij}(y_j)\big)\Big),$$

    with dropout masks $m_i$ of whole channels, drawn once a solve. $P_{ij}$ is a convolution of stride 2 and a norm for
    every halving, ReLU between them, or towards the finer a convolution of single pixels, a norm, and each pixel
    repeated. The kernels $W_i$, $W_i'$ and $V_i$ are normalised, and by ``prepared()`` made once, outside the solve.

    Scale ``i`` of the state is ``[batch, height / 2^i, width / 2^i, channels[i]]``; images of any size will do that can
    be halved so often. ``inject(x)`` makes the injection; the solve starts from zeros.

    Args:
        channels: channels of the scales, the finest first; two at least. The first are those of ``x``.
        expansion: how many times as many channels there are between a block's convolutions.
        num_groups: groups of each group normalisation, and twice those of the last; must divide all channels.
        kernel_size: side of the blocks' square kernels, odd.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from: kernels between scales from N(0, 0.01²), others as PyTorch's.

    Raises:
        ValueError: there is one scale alone, ``num_groups`` does not divide the channels, or ``kernel_size`` is even;
            from ``inject``: the image cannot be halved so often, a kernel reaches beyond its coarsest scale, or it has
            other channels.

    Source: Bai, Koltun and Kolter, "Multiscale deep equilibrium models", 2020, and the authors' code.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        expansion: int = 5,
        num_groups: int = 8,
        kernel_size: int = 3,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        factor = 2 ** (len(channels) - 1)
        tier_sizes(factor, factor, len(channels))  # refuses a single one
        inner = whole_number("expansion", expansion)
        self.channels, self.kernel_size = tuple(channels), kernel_size
        blocks = [
            Block(
                width,
                inner * width,
                num_groups=num_groups,
                kernel_size=kernel_size,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            for width in channels
        ]
        self.blocks = nnx.List(blocks)
        self.fusion = Fusion(channels, num_groups=num_groups, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, z: Images, x: Injection) -> Images:
        """Evaluate ``f(z, x)``."""
        alone = [
            block(image, None if scale else x.x, x.masks, scale)
            for scale, (block, image) in enumerate(zip(self.blocks, z, strict=True))
        ]
        return self.fusion(tuple(alone))

    def inject(self, x: Image, masks: Masks = ()) -> Injection:
        """The injection of ``[batch, height, width, channels[0]]``, and dropout masks, one a scale."""
        if x.ndim != 4 or x.shape[-1] != self.channels[0]:
            raise ValueError(
                f"MultiscaleCell takes an injection [batch, height, width, {self.channels[0]}], got {list(x.shape)}. "
                "Channels come last; one image is a batch of 1, x[None]."
            )
        self.sizes(*x.shape[1:3])
        return Injection(x, masks)

    def initial_state(self, x: Injection) -> Images:
        """Zeros, of every scale."""
        return zero_tiers(x.x, self.sizes(*x.x.shape[1:3]), self.channels)

    def sizes(self, height: int, width: int) -> tuple[Size, ...]:
        """Height and width of each scale, for an injection of this height and width."""
        sizes = tier_sizes(height, width, len(self.channels))
        largest = 2 * min(sizes[-1]) - 1
        if self.kernel_size > largest:
            raise ValueError(
                f"kernel_size {self.kernel_size} is too large for an image of {height}×{width}: of its coarsest scale, "
                f"{sizes[-1][0]}×{sizes[-1][1]}, a kernel's outer numbers would never meet a pixel. Choose at most "
                f"{largest}, or fewer scales."
            )
        return sizes

    def prepared(self) -> "MultiscaleCell":
        """The cell to solve with; see [`deq_jax.nn.DEQ`][]."""
        return with_plain_layers(self)
