"""The layer of a convolution, and what layers share: shapes, initial values, a vector along the channels.

Images are ``[batch, height, width, channels]``. The functions hold the maths; the modules hold the parameters.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deq_jax.nn.layers.convolution import Image, conv
from deq_jax.settings import whole_number

Resized = Float[Array, "batch out_height out_width out_channels"]

SMALL = nnx.initializers.normal(0.01)
"""The chapter's N(0, 0.01²): the weights of a cell start smaller than those of ordinary layers."""


def along_channels(a: Float[Array, " channels"], x: Float[Array, "*axes channels"]) -> Float[Array, "*ones channels"]:
    """``a`` with as many axes as ``x``: under JAX's flag against rank promotion they are not added in silence."""
    return jnp.expand_dims(a, tuple(range(x.ndim - 1)))


class Conv(nnx.Module):
    """Convolution ``[batch, height, width, in] -> [batch, height, width, out]`` with zero padding; see `conv`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel, or its rows and columns; odd.
        stride: keeps every ``stride``-th row and column; 1 keeps the size.
        use_bias: whether to add a bias per channel.
        kernel_init: draws the kernel; the default and the bias are PyTorch's, uniform in ±1/√fan_in.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from.

    Raises:
        ValueError: ``kernel_size`` is no whole number, or even, so that no padding keeps the size on both sides alike.

    Source: the chapter, "Designing the layer f"; defaults as in PyTorch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        *,
        stride: int = 1,
        use_bias: bool = True,
        kernel_init: nnx.Initializer | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        sides = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
        rows, columns = (whole_number("kernel_size", side) for side in sides)
        if rows % 2 == 0 or columns % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}.")
        uniform = uniform_by_fan_in(rows * columns * in_channels)
        shape = (rows, columns, in_channels, out_channels)
        self.stride = stride
        self.kernel = nnx.Param((kernel_init or uniform)(rngs.params(), shape, param_dtype))
        self.bias = nnx.Param(uniform(rngs.params(), (out_channels,), param_dtype)) if use_bias else None

    def __call__(self, x: Image) -> Resized:
        """Convolve floating-point images ``[batch, height, width, in_channels]``.

        Raises:
            TypeError: the images are integers.
            ValueError: the images have another number of axes or channels.
        """
        channels, x = self.kernel.shape[2], jnp.asarray(x)
        if x.ndim != 4 or x.shape[-1] != channels:
            raise ValueError(
                f"convolution takes images [batch, height, width, {channels}], got {list(x.shape)}. "
                "Channels come last; one image is a batch of 1, image[None]."
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                f"convolution takes floating-point images, got {x.dtype}. "
                "Scale them first: images.astype(jnp.float32) / 255."
            )
        kernel = self.kernel[...].astype(x.dtype)
        y = conv(x, kernel, self.stride)
        return y if self.bias is None else y + along_channels(self.bias[...].astype(x.dtype), y)


def uniform_by_fan_in(fan_in: int) -> nnx.Initializer:
    """PyTorch's default initialisation of weights and biases: uniform in ±1/√fan_in."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)
