"""Layers that are fast inside a solver's loop, forward and transposed, and PyTorch's batch normalisation.

Images are ``[batch, height, width, channels]``. The functions hold the maths; the modules hold the parameters.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deq_jax.nn.convolution import Image, conv, plain_conv
from deq_jax.settings import whole_number
from deq_jax.spread import devices_of, on_all_devices

Resized = Float[Array, "batch out_height out_width out_channels"]


def group_norm(
    x: Float[Array, "batch *space channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    *,
    num_groups: int,
    epsilon: float,
) -> Float[Array, "batch *space channels"]:
    """Group normalisation: ``scale · (x − μ) / √(σ² + epsilon) + bias``, ``μ`` and ``σ²`` per sample and group.

    Both come from per-channel sums, so that ``x`` itself is never reshaped to groups, which is slow in a loop on a
    CPU. They are taken in float32 or better, and bear a mean that is a thousand times the deviation: the variance is
    that of ``x − μ``, and on an accelerator, which waits for memory, that of ``x − x₀``, where ``x₀`` is the group's
    first number: ``E[(x − x₀)²] − E[x − x₀]²`` reads ``x`` once, and of ``n`` numbers loses at most ``n`` roundings.

    Source: Wu and He, "Group normalization", 2018; Chan, Golub and LeVeque, "Algorithms for computing the sample
    variance", 1983.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centre = centred_in_two_passes if jax.default_backend() == "cpu" else centred_in_one_pass
    centred, variance = centre(wide, num_groups)
    factor = scale[None] * lax.rsqrt(variance + epsilon)
    return (centred * _over_space(factor, x) + along_channels(bias, x)).astype(x.dtype)


def centred_in_two_passes(
    x: Float[Array, "batch *space channels"], num_groups: int
) -> tuple[Float[Array, "batch *space channels"], Float[Array, "batch channels"]]:
    """``x − μ`` and ``σ²`` of each sample and group, one after the other."""
    space = tuple(range(1, x.ndim - 1))

    def per_group(moment: Float[Array, "batch channels"]) -> Float[Array, "batch channels"]:
        groups = moment.reshape(moment.shape[0], num_groups, -1)
        return jnp.broadcast_to(jnp.mean(groups, axis=2, keepdims=True), groups.shape).reshape(moment.shape)

    centred = x - _over_space(per_group(jnp.mean(x, axis=space)), x)
    return centred, per_group(jnp.mean(centred * centred, axis=space))


def centred_in_one_pass(
    x: Float[Array, "batch *space channels"], num_groups: int
) -> tuple[Float[Array, "batch *space channels"], Float[Array, "batch channels"]]:
    """The same, from sums of ``x − x₀`` and of its squares: one kernel on a GPU makes both."""
    space, width = tuple(range(1, x.ndim - 1)), x.shape[-1] // num_groups
    numbers = x.size // max(x.shape[0], 1) // num_groups

    def per_channel(a: Float[Array, "batch groups"]) -> Float[Array, "batch channels"]:
        return jnp.broadcast_to(a[..., None], (*a.shape, width)).reshape(a.shape[0], -1)

    def mean(total: Float[Array, "batch channels"]) -> Float[Array, "batch groups"]:
        # Sums of slices become part of their neighbours' kernels, a reduction over groups is a kernel of its own.
        return functools.reduce(jnp.add, [total[:, k::width] for k in range(width)]) / numbers

    first = lax.stop_gradient(x[(slice(None), *[0] * len(space), slice(None, None, width))])
    shifted = x - _over_space(per_channel(first), x)
    shift, square = mean(jnp.sum(shifted, space)), mean(jnp.sum(shifted * shifted, space))
    centred = x - _over_space(per_channel(first + shift), x)
    return centred, per_channel(jnp.maximum(square - shift * shift, 0))


def _over_space(a: Float[Array, "batch channels"], x: Array) -> Float[Array, "batch *ones channels"]:
    return jnp.expand_dims(a, tuple(range(1, x.ndim - 1)))


def along_channels(a: Float[Array, " channels"], x: Float[Array, "*axes channels"]) -> Float[Array, "*ones channels"]:
    """``a`` with as many axes as ``x``: under JAX's flag against rank promotion they are not added in silence."""
    return jnp.expand_dims(a, tuple(range(x.ndim - 1)))


class Conv(nnx.Module):
    """Convolution ``[batch, height, width, in] -> [batch, height, width, out]``, the size kept; see `conv`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel, or its rows and columns; odd.
        stride: keeps every ``stride``-th row and column; other than 1 it does not belong into a solver's loop.
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
        y = conv(x, kernel) if self.stride == 1 else plain_conv(x, kernel, self.stride)
        return y if self.bias is None else y + along_channels(self.bias[...].astype(x.dtype), y)


class GroupNorm(nnx.Module):
    """Group normalisation over ``[batch, ..., channels]`` with a learned scale and bias per channel; see `group_norm`.

    Args:
        channels: channels of the input.
        num_groups: groups that the channels fall into.
        epsilon: added to the variance; PyTorch's default.
        param_dtype: dtype of the parameters.

    Raises:
        ValueError: ``channels`` is not a multiple of ``num_groups``.

    Source: Wu and He, "Group normalization", 2018.
    """

    def __init__(self, channels: int, num_groups: int, *, epsilon: float = 1e-5, param_dtype: DTypeLike = jnp.float32):
        if num_groups < 1 or channels % num_groups:
            raise ValueError(f"{channels} channels do not fall into {num_groups} groups; num_groups must divide them.")
        self.num_groups = num_groups
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(channels, param_dtype))
        self.bias = nnx.Param(jnp.zeros(channels, param_dtype))

    def __call__(self, x: Float[Array, "batch *space channels"]) -> Float[Array, "batch *space channels"]:
        """Normalise ``[batch, ..., channels]``.

        Raises:
            ValueError: ``x`` has another number of channels.
        """
        _check_channels("GroupNorm", x, self.scale)
        return group_norm(x, self.scale[...], self.bias[...], num_groups=self.num_groups, epsilon=self.epsilon)


class BatchNorm(nnx.Module):
    """Batch normalisation over ``[batch, ..., channels]`` as PyTorch does it; belongs outside the solve.

    In training it normalises by the batch's mean and biased variance, and moves the running averages by ``momentum``
    towards the mean and the *unbiased* variance, where Flax's takes the biased one. In evaluation (``model.eval()``)
    it normalises by the running averages.

    Args:
        channels: channels of the input.
        epsilon: added to the variance.
        momentum: the share of the batch in a running average.
        param_dtype: dtype of parameters and running averages.

    Source: Ioffe and Szegedy, "Batch normalization", 2015; the defaults are PyTorch's.
    """

    def __init__(
        self,
        channels: int,
        *,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        param_dtype: DTypeLike = jnp.float32,
    ):
        self.epsilon = epsilon
        self.momentum = momentum
        self.use_running_average = False
        self.scale = nnx.Param(jnp.ones(channels, param_dtype))
        self.bias = nnx.Param(jnp.zeros(channels, param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros(channels, param_dtype))
        self.var = nnx.BatchStat(jnp.ones(channels, param_dtype))

    def __call__(self, x: Float[Array, "batch *space channels"]) -> Float[Array, "batch *space channels"]:
        """Normalise ``[batch, ..., channels]``, and in training move the running averages.

        Raises:
            ValueError: ``x`` has another number of channels.
        """
        _check_channels("BatchNorm", x, self.scale)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.use_running_average:
            mean, variance = self.mean[...], self.var[...]
        else:
            count = jnp.asarray(x.size // x.shape[-1], wide.dtype)
            mean, variance = _moments(wide)
            unbiased = variance * (count / jnp.maximum(count - 1, 1))
            for average, new in ((self.mean, mean), (self.var, unbiased)):
                average[...] += (self.momentum * (new - average[...])).astype(average.dtype)
        factor = self.scale[...] * lax.rsqrt(variance + self.epsilon)
        mean, factor, bias = (along_channels(a, x) for a in (mean, factor, self.bias[...]))
        return ((wide - mean) * factor + bias).astype(x.dtype)


def _moments(
    x: Float[Array, "batch *space channels"],
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Mean and biased variance of every channel, from those of each device's samples: they meet once.

    Source: Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983, for parts of one size.
    """
    axes, devices = tuple(range(x.ndim - 1)), devices_of(x.shape[0])
    if devices == 1:
        return jnp.mean(x, axes), jnp.var(x, axes)
    parts = x.reshape(devices, -1, x.shape[-1])
    means, variances = on_all_devices(jnp.stack([jnp.mean(parts, 1), jnp.var(parts, 1)]))
    mean = jnp.mean(means, 0)
    return mean, jnp.mean(variances + jnp.square(means - mean[None]), 0)


def _check_channels(layer: str, x: Array, scale: nnx.Param) -> None:
    # Without it, a single channel would broadcast in silence.
    if x.ndim < 2 or x.shape[-1] != scale.shape[0]:
        raise ValueError(f"{layer} takes [batch, ..., {scale.shape[0]}], channels last; got {list(x.shape)}.")


def uniform_by_fan_in(fan_in: int) -> nnx.Initializer:
    """PyTorch's default initialisation of weights and biases: uniform in ±1/√fan_in."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)
