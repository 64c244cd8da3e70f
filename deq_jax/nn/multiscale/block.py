"""What one resolution does by itself."""

import jax
from flax import nnx
from jax.typing import DTypeLike

from deq_jax.nn.layers.convolution import Image
from deq_jax.nn.layers.dropout import Masks, dropped
from deq_jax.nn.layers.normalisation import GroupNorm
from deq_jax.nn.layers.weight_normalisation import NormalisedConv


class Block(nnx.Module):
    """A residual block, ``norm₃(ReLU(z + norm₂(mask · W₂ ∗ ReLU(norm₁(W₁ ∗ z)) + x)))``, of normalised kernels.

    Args:
        channels: channels of ``z`` and ``x``, images ``[batch, height, width, channels]``.
        inner_channels: channels between the convolutions.
        num_groups: groups of each group normalisation; must divide both.
        kernel_size: side of the square kernels, odd.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from; kernels are PyTorch's, and gains their norms.

    Source: Bai, Koltun and Kolter, "Multiscale deep equilibrium models", 2020, figure 2.
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int,
        *,
        num_groups: int,
        kernel_size: int,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        def conv(into: int, out: int) -> NormalisedConv:
            return NormalisedConv(into, out, kernel_size, max_gain=None, std=None, param_dtype=param_dtype, rngs=rngs)

        def norm(width: int) -> GroupNorm:
            return GroupNorm(width, num_groups, param_dtype=param_dtype)

        self.conv1, self.conv2 = conv(channels, inner_channels), conv(inner_channels, channels)
        self.norm1, self.norm2, self.norm3 = norm(inner_channels), norm(channels), norm(channels)

    def __call__(self, z: Image, x: Image | None, masks: Masks, scale: int) -> Image:
        """Evaluate it; without an injection where ``x`` is None, and with the mask of its scale where there are any."""
        y = dropped(self.conv2(jax.nn.relu(self.norm1(self.conv1(z)))), masks, scale)
        y = self.norm2(y if x is None else y + x)
        return self.norm3(jax.nn.relu(z + y))
