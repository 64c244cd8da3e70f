"""Normalisation: of groups, fast in a solver's loop, and of batches as PyTorch does it, which belongs outside.

Both take ``[batch, ..., channels]``. The functions hold the maths; the modules hold the parameters.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deq_jax.nn.layers.conv import along_channels
from deq_jax.states.spread import devices_of, on_all_devices


def group_norm(
    x: Float[Array, "batch *space channels"],
    scale: Float[Array, " channels"] | None,
    bias: Float[Array, " channels"] | None,
    *,
    num_groups: int,
    epsilon: float,
) -> Float[Array, "batch *space channels"]:
    """Group normalisation: ``scale · (x − μ) / √(σ² + epsilon) + bias``, ``μ`` and ``σ²`` per sample and group.

    No scale is one of 1, no bias one of 0.

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
    factor = lax.rsqrt(variance + epsilon)
    y = centred * _over_space(factor if scale is None else scale[None] * factor, x)
    return (y if bias is None else y + along_channels(bias, x)).astype(x.dtype)


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


class GroupNorm(nnx.Module):
    """Group normalisation over ``[batch, ..., channels]`` with a learned scale and bias per channel; see `group_norm`.

    Args:
        channels: channels of the input.
        num_groups: groups that the channels fall into.
        epsilon: added to the variance; PyTorch's default.
        is_affine: whether there are a scale and a bias.
        param_dtype: dtype of the parameters.

    Raises:
        ValueError: ``channels`` is not a multiple of ``num_groups``.

    Source: Wu and He, "Group normalization", 2018.
    """

    def __init__(
        self,
        channels: int,
        num_groups: int,
        *,
        epsilon: float = 1e-5,
        is_affine: bool = True,
        param_dtype: DTypeLike = jnp.float32,
    ):
        if num_groups < 1 or channels % num_groups:
            raise ValueError(f"{channels} channels do not fall into {num_groups} groups; num_groups must divide them.")
        self.channels = channels
        self.num_groups = num_groups
        self.epsilon = epsilon
        self.scale, self.bias = _scale_and_bias(channels, is_affine, param_dtype)

    def __call__(self, x: Float[Array, "batch *space channels"]) -> Float[Array, "batch *space channels"]:
        """Normalise ``[batch, ..., channels]``.

        Raises:
            ValueError: ``x`` has another number of channels.
        """
        _check_channels("GroupNorm", x, self.channels)
        scale, bias = _values(self.scale), _values(self.bias)
        return group_norm(x, scale, bias, num_groups=self.num_groups, epsilon=self.epsilon)


class BatchNorm(nnx.Module):
    """Batch normalisation over ``[batch, ..., channels]`` as PyTorch does it; belongs outside the solve.

    In training it normalises by the batch's mean and biased variance, and moves the running averages by ``momentum``
    towards the mean and the *unbiased* variance, where Flax's takes the biased one. In evaluation (``model.eval()``)
    it normalises by the running averages.

    Args:
        channels: channels of the input.
        epsilon: added to the variance.
        momentum: the share of the batch in a running average.
        is_affine: whether there are a scale and a bias.
        param_dtype: dtype of parameters and running averages.

    Source: Ioffe and Szegedy, "Batch normalization", 2015; the defaults are PyTorch's.
    """

    def __init__(
        self,
        channels: int,
        *,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        is_affine: bool = True,
        param_dtype: DTypeLike = jnp.float32,
    ):
        self.channels = channels
        self.epsilon = epsilon
        self.momentum = momentum
        self.use_running_average = False
        self.scale, self.bias = _scale_and_bias(channels, is_affine, param_dtype)
        self.mean = nnx.BatchStat(jnp.zeros(channels, param_dtype))
        self.var = nnx.BatchStat(jnp.ones(channels, param_dtype))

    def __call__(self, x: Float[Array, "batch *space channels"]) -> Float[Array, "batch *space channels"]:
        """Normalise ``[batch, ..., channels]``, and in training move the running averages.

        Raises:
            ValueError: ``x`` has another number of channels.
        """
        _check_channels("BatchNorm", x, self.channels)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.use_running_average:
            mean, variance = self.mean[...], self.var[...]
        else:
            count = jnp.asarray(x.size // x.shape[-1], wide.dtype)
            mean, variance = _moments(wide)
            unbiased = variance * (count / jnp.maximum(count - 1, 1))
            for average, new in ((self.mean, mean), (self.var, unbiased)):
                average[...] += (self.momentum * (new - average[...])).astype(average.dtype)
        factor = lax.rsqrt(variance + self.epsilon)
        factor = factor if self.scale is None else self.scale[...] * factor
        y = (wide - along_channels(mean, x)) * along_channels(factor, x)
        return (y if self.bias is None else y + along_channels(self.bias[...], x)).astype(x.dtype)


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


def _scale_and_bias(
    channels: int, is_affine: bool, param_dtype: DTypeLike
) -> tuple[nnx.Param | None, nnx.Param | None]:
    if not is_affine:
        return None, None
    return nnx.Param(jnp.ones(channels, param_dtype)), nnx.Param(jnp.zeros(channels, param_dtype))


def _values(param: nnx.Param | None) -> Float[Array, " channels"] | None:
    return None if param is None else param[...]


def _check_channels(layer: str, x: Array, channels: int) -> None:
    # Without it, a single channel would broadcast in silence.
    if x.ndim < 2 or x.shape[-1] != channels:
        raise ValueError(f"{layer} takes [batch, ..., {channels}], channels last; got {list(x.shape)}.")
