"""Layers whose weights have a direction and a norm of their own, and are made of both once, outside the solve."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deq_jax.nn.layers.conv import Conv, along_channels
from deq_jax.nn.layers.convolution import Convolved, Image
from deq_jax.settings import check_positive


class NormalisedConv(nnx.Module):
    """Convolution by ``w = g · v / ‖v‖₂``, the norm that of each output channel's kernel; no bias.

    An input of uncorrelated entries of variance 1 comes out with the standard deviation ``g = max_gain · σ(s)``, so
    that ``max_gain`` bounds how much the state weighs against an injection of variance 1, whatever the optimiser does.
    It does not bound the spectral norm, which is larger where the input is correlated. Without it ``g`` is free.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel, odd.
        max_gain: the gains stay below this; None for gains without a bound.
        std: standard deviation of the normal distribution that ``v`` is drawn from; None for PyTorch's default, uniform
            in ±1/√fan_in. The gains start at the norm that such a kernel has on average, or at half of ``max_gain``
            where that is less. Those without a bound start at the norms that have been drawn.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from.

    Raises:
        ValueError: ``max_gain`` or ``std`` is not positive, or ``kernel_size`` is even.

    Source: Salimans and Kingma, "Weight normalization", 2016, equation 2; the bound is this library's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        max_gain: float | None = 1.0,
        std: float | None = 0.01,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if max_gain is not None and not 0 < max_gain < math.inf:
            raise ValueError(f"max_gain must be positive, got {max_gain}.")
        if std is not None:
            check_positive("std", std)
        drawn = Conv(
            in_channels,
            out_channels,
            kernel_size,
            use_bias=False,
            kernel_init=None if std is None else nnx.initializers.normal(std),
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.max_gain = max_gain
        self.kernel = drawn.kernel
        if max_gain is None:
            self.gain = nnx.Param(jnp.sqrt(jnp.sum(jnp.square(drawn.kernel[...]), axis=(0, 1, 2))))
            return
        # Uniform in ±1/√n has the deviation 1/√3n.
        norm = 3**-0.5 if std is None else std * kernel_size * math.sqrt(in_channels)
        share = min(norm / max_gain, 0.5)
        self.gain_logit = nnx.Param(jnp.full(out_channels, math.log(share / (1 - share)), param_dtype))

    def __call__(self, x: Image) -> Convolved:
        """Convolve floating-point images ``[batch, height, width, in_channels]``."""
        return self.plain()(x)

    def plain(self) -> Conv:
        """The plain convolution that this one computes; gradients of its kernel reach ``v`` and ``s``."""
        side, _, in_channels, out_channels = self.kernel.shape
        bound = self.max_gain
        gain = self.gain[...] if bound is None else bound * jax.nn.sigmoid(self.gain_logit[...])
        kernel = normalised_kernel(self.kernel[...], gain)
        return Conv(
            in_channels,
            out_channels,
            side,
            use_bias=False,
            kernel_init=lambda *_: kernel,
            rngs=nnx.Rngs(0),  # draws nothing
        )


def normalised_kernel(v: Float[Array, "*inner out"], gain: Float[Array, " out"]) -> Float[Array, "*inner out"]:
    """``gain · v / ‖v‖₂`` for each output, the last axis; zero where ``v`` is."""
    squared = jnp.sum(v * v, axis=tuple(range(v.ndim - 1)))
    return v * along_channels(gain * jax.lax.rsqrt(jnp.maximum(squared, jnp.finfo(v.dtype).tiny)), v)


def of_norm(v: Float[Array, "..."], gain: Float[Array, ""]) -> Float[Array, "..."]:
    """``gain · v / ‖v‖₂``, the norm that of all its numbers; zero where ``v`` is.

    Source: Salimans and Kingma, "Weight normalization", 2016, equation 2, for a kernel as a whole.
    """
    return v * (gain * jax.lax.rsqrt(jnp.maximum(jnp.sum(v * v), jnp.finfo(v.dtype).tiny)))


class NormalisedLinear(nnx.Module):
    """A matrix product by ``w = g · v / ‖v‖₂``, the norm that of each output's column, and a bias.

    Args:
        in_features: features of the input ``[batch, ..., in_features]``.
        out_features: features of the output.
        use_bias: whether to add a bias, zero at first.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from; ``v`` from N(0, 1/in_features), and ``g`` starts as its norm.

    Raises:
        ValueError: when called: the input has other features.

    Source: Salimans and Kingma, "Weight normalization", 2016, equation 2.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        drawn = nnx.initializers.lecun_normal()(rngs.params(), (in_features, out_features), param_dtype)
        self.kernel = nnx.Param(drawn)
        self.gain = nnx.Param(jnp.linalg.norm(drawn, axis=0))
        self.bias = nnx.Param(jnp.zeros(out_features, param_dtype)) if use_bias else None

    def __call__(self, x: Float[Array, "batch *places in_features"]) -> Float[Array, "batch *places out_features"]:
        """The product with ``[batch, ..., in_features]``."""
        return self.plain()(x)

    def plain(self) -> nnx.Linear:
        """The plain layer that this one computes; gradients of its kernel reach ``v`` and ``g``."""
        into, out = self.kernel.shape
        kernel = normalised_kernel(self.kernel[...], self.gain[...])
        bias = None if self.bias is None else self.bias[...]
        return nnx.Linear(
            into,
            out,
            use_bias=bias is not None,
            kernel_init=lambda *_: kernel,
            bias_init=lambda *_: bias,
            param_dtype=kernel.dtype,
            rngs=nnx.Rngs(0),  # draws nothing
        )


def with_plain_layers[Cell: nnx.Module](cell: Cell) -> Cell:
    """The cell itself, or where parts of it have a ``plain()``, a copy with what that gives in their places."""
    if not any(hasattr(part, "plain") for _, part in nnx.iter_modules(cell)):
        return cell
    copy = nnx.merge(*nnx.split(cell))
    _make_plain(copy)
    return copy


def _make_plain(module: nnx.Module) -> None:
    for name, part in list(nnx.iter_children(module)):
        if hasattr(part, "plain"):
            setattr(module, str(name), part.plain())
        elif isinstance(part, nnx.Module | nnx.List):
            _make_plain(part)


def make_conv(
    max_gain: float | None, kernel_init: nnx.Initializer, param_dtype: DTypeLike, rngs: nnx.Rngs
) -> functools.partial:
    """What makes the bias-free convolutions of a cell: plain ones, or where ``max_gain`` is given, normalised ones."""
    if max_gain is None:
        return functools.partial(Conv, use_bias=False, kernel_init=kernel_init, param_dtype=param_dtype, rngs=rngs)
    return functools.partial(NormalisedConv, max_gain=max_gain, param_dtype=param_dtype, rngs=rngs)
