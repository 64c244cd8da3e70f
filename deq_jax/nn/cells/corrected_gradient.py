"""A cell for inverse problems: gradient steps to what was measured, and a learned correction after each of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from deq_jax.nn.layers.conv import Conv
from deq_jax.nn.layers.convolution import Image


class CorrectedGradientCell(nnx.Module):
    r"""A gradient step on the squared error of what was measured, corrected by a convolutional network ``R``.

    $$f(z, x) = g + R(g), \qquad g = z - \eta\,(A^\top A z - x), \qquad x = A^\top y$$

    with the linear map ``A`` that made the measurement ``y`` and a learned step ``η``, 1 at first. State and injection
    are images ``[batch, height, width, channels]``. ``R`` is zero at first, and the solve starts from the injection.

    Args:
        normal: ``z ↦ Aᵀ A z``.
        channels: channels of ``z`` and ``x``.
        inner_channels: channels within ``R``, of three 3×3 convolutions.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from.

    Raises:
        ValueError: when called: the images have other channels.

    Source: Gilton et al., "Deep equilibrium architectures for inverse problems in imaging", 2021.
    """

    def __init__(
        self,
        normal: Callable[[Image], Image],
        channels: int,
        inner_channels: int,
        *,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.normal = normal
        self.step = nnx.Param(jnp.ones((), param_dtype))
        self.conv1 = Conv(channels, inner_channels, param_dtype=param_dtype, rngs=rngs)
        self.conv2 = Conv(inner_channels, inner_channels, param_dtype=param_dtype, rngs=rngs)
        zeros = nnx.initializers.zeros_init()
        self.conv3 = Conv(
            inner_channels, channels, use_bias=False, kernel_init=zeros, param_dtype=param_dtype, rngs=rngs
        )

    def __call__(self, z: Image, x: Image) -> Image:
        """Evaluate ``f(z, x)``."""
        g = z - self.step[...] * (self.normal(z).astype(z.dtype) - x)
        return g + self.conv3(jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(g)))))

    def initial_state(self, x: Image) -> Image:
        """The injection."""
        return x
