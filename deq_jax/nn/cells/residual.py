"""Convolutional cells of images, residual ones: the chapter's, and two that normalise before each convolution."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from deq_jax.nn.layers.conv import SMALL
from deq_jax.nn.layers.convolution import Image
from deq_jax.nn.layers.normalisation import GroupNorm
from deq_jax.nn.layers.weight_normalisation import make_conv, with_plain_layers


class ResNetCell(nnx.Module):
    """The chapter's residual cell, ``f(z, x) = norm(ReLU(z + norm(x + W₂ ∗ norm(ReLU(W₁ ∗ z)))))``.

    State and injection are images ``[batch, height, width, channels]``; the layer between the convolutions is wider,
    so that the cell can do much while the solve stays small. Convolutions have no bias and weights from N(0, 0.01²).

    Args:
        channels: channels of ``z`` and ``x``.
        inner_channels: channels between the convolutions.
        num_groups: groups of each group normalisation; must divide both.
        kernel_size: side of the square kernels, odd.
        max_gain: bounds the gains of the convolutions' normalised kernels; None for plain kernels, as in the chapter.
            See [`deq_jax.nn.NormalisedConv`][].
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from.

    Raises:
        ValueError: ``num_groups`` does not divide the channels, or ``kernel_size`` is even.

    Source: the chapter, "Designing the layer f".
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int,
        *,
        num_groups: int = 8,
        kernel_size: int = 3,
        max_gain: float | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        conv = make_conv(max_gain, SMALL, param_dtype, rngs)
        self.conv1 = conv(channels, inner_channels, kernel_size)
        self.conv2 = conv(inner_channels, channels, kernel_size)
        self.norm1 = GroupNorm(inner_channels, num_groups, param_dtype=param_dtype)
        self.norm2 = GroupNorm(channels, num_groups, param_dtype=param_dtype)
        self.norm3 = GroupNorm(channels, num_groups, param_dtype=param_dtype)

    def __call__(self, z: Image, x: Image) -> Image:
        """Evaluate ``f(z, x)``."""
        y = self.norm1(jax.nn.relu(self.conv1(z)))
        return self.norm3(jax.nn.relu(z + self.norm2(x + self.conv2(y))))

    def as_layer(self, z: Image) -> Image:
        """The ordinary residual block of the same parameters, without an injection: ``f(z, 0)``."""
        return self(z, jnp.zeros_like(z))

    def prepared(self) -> "ResNetCell":
        """The cell to solve with; see [`deq_jax.nn.DEQ`][]."""
        return with_plain_layers(self)


class PreActivationCell(nnx.Module):
    """Normalisation and ReLU before each convolution, ``f(z, x) = x + W₂ ∗ ReLU(norm(W₁ ∗ ReLU(norm(z))))``.

    State and injection are images ``[batch, height, width, channels]``. The injection reaches the equilibrium
    unchanged, and the solve starts from it. The cell has one normalisation less to evaluate than
    [`deq_jax.nn.ResNetCell`][], and no skip of ``z``, which would add 1 to the Jacobian's eigenvalues.

    Args:
        channels: channels of ``z`` and ``x``.
        inner_channels: channels between the convolutions.
        num_groups: groups of each group normalisation; must divide both.
        kernel_size: side of the square kernels, odd.
        max_gain: bounds the gains of the convolutions' normalised kernels; None for plain kernels, drawn from
            N(0, 0.01²). See [`deq_jax.nn.NormalisedConv`][].
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from.

    Raises:
        ValueError: ``num_groups`` does not divide the channels, or ``kernel_size`` is even.

    Source: the order of its layers is that of He et al., "Identity mappings in deep residual networks", 2016.
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int,
        *,
        num_groups: int = 8,
        kernel_size: int = 3,
        max_gain: float | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        conv = make_conv(max_gain, SMALL, param_dtype, rngs)
        self.conv1 = conv(channels, inner_channels, kernel_size)
        self.conv2 = conv(inner_channels, channels, kernel_size)
        self.norm1 = GroupNorm(channels, num_groups, param_dtype=param_dtype)
        self.norm2 = GroupNorm(inner_channels, num_groups, param_dtype=param_dtype)

    def __call__(self, z: Image, x: Image) -> Image:
        """Evaluate ``f(z, x)``."""
        y = self.conv1(jax.nn.relu(self.norm1(z)))
        return x + self.conv2(jax.nn.relu(self.norm2(y)))

    def initial_state(self, x: Image) -> Image:
        """The injection: what ``f`` adds to is a better start than zeros, whose norm is none."""
        return x

    def as_layer(self, z: Image) -> Image:
        """The ordinary residual block of the same parameters, which adds to its own input: ``f(z, z)``."""
        return self(z, z)

    def prepared(self) -> "PreActivationCell":
        """The cell to solve with; see [`deq_jax.nn.DEQ`][]."""
        return with_plain_layers(self)


class InjectionCell(nnx.Module):
    """A cell that works on its injection, ``f(z, x) = x + W₂ ∗ ReLU(norm(W₁ ∗ ReLU(norm(z)) + U ∗ ReLU(norm(x))))``.

    State and injection are images ``[batch, height, width, channels]``, and the solve starts from the injection. ``W₁``
    has kernels of a single pixel. ``U`` sees the neighbourhood, and the compiler takes its branch out of the solver's
    loop, where nothing in it changes: an evaluation takes about 0.6 of the time of a
    [`deq_jax.nn.PreActivationCell`][]'s (96 and 56 channels, 8×8 pixels, one CPU core). With ``W₁ = 0`` the equilibrium
    is an ordinary residual block of ``x``, and learning goes on from there.

    Args:
        channels: channels of ``z`` and ``x``.
        inner_channels: channels between the convolutions.
        num_groups: groups of each group normalisation; must divide both.
        kernel_size: side of the square kernels ``U`` and ``W₂``, odd.
        max_gain: bounds the gains of the convolutions' normalised kernels; None for plain kernels, drawn from
            N(0, 0.01²). See [`deq_jax.nn.NormalisedConv`][].
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from.

    Raises:
        ValueError: ``num_groups`` does not divide the channels, or ``kernel_size`` is even.

    Source: the ``U x`` of the chapter's ``σ(W z + U x + b)``, "Deep networks and fixed point equations", in a block of
    He et al., "Identity mappings in deep residual networks", 2016.
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int,
        *,
        num_groups: int = 8,
        kernel_size: int = 3,
        max_gain: float | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        conv = make_conv(max_gain, SMALL, param_dtype, rngs)
        self.conv_x = conv(channels, inner_channels, kernel_size)
        self.conv1 = conv(channels, inner_channels, 1)
        self.conv2 = conv(inner_channels, channels, kernel_size)
        self.norm_x = GroupNorm(channels, num_groups, param_dtype=param_dtype)
        self.norm1 = GroupNorm(channels, num_groups, param_dtype=param_dtype)
        self.norm2 = GroupNorm(inner_channels, num_groups, param_dtype=param_dtype)

    def __call__(self, z: Image, x: Image) -> Image:
        """Evaluate ``f(z, x)``."""
        y = self.conv1(jax.nn.relu(self.norm1(z))) + self.conv_x(jax.nn.relu(self.norm_x(x)))
        return x + self.conv2(jax.nn.relu(self.norm2(y)))

    def initial_state(self, x: Image) -> Image:
        """The injection: what ``f`` adds to is a better start than zeros, whose norm is none."""
        return x

    def prepared(self) -> "InjectionCell":
        """The cell to solve with; see [`deq_jax.nn.DEQ`][]."""
        return with_plain_layers(self)
