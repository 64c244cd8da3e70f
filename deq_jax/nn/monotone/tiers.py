"""A monotone cell on images of several resolutions."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deq_jax.nn.layers.conv import Conv
from deq_jax.nn.layers.convolution import Image
from deq_jax.nn.layers.weight_normalisation import of_norm
from deq_jax.nn.monotone import parametrisation
from deq_jax.nn.monotone.cells import bordered, check_kernel_fits, free_kernel, relu_within
from deq_jax.nn.tiers import tier_sizes, zero_tiers
from deq_jax.operators import MonotoneMap, Tiers
from deq_jax.operators.circulant import symbol
from deq_jax.operators.matrices import norm_bound
from deq_jax.operators.tiers import Images


class TiersMonotoneCell(nnx.Module):
    """A monotone cell whose state is a tuple of images, each of half the sides of the one before; see the others.

    Tier ``i`` is ``[batch, height / 2^i + 2p, width / 2^i + 2p, channels[i]]``, with a border of zeros as wide as half
    a kernel. Each acts on itself by convolutions ``Aᵢ``, ``Bᵢ``, and on the next by ``Sᵢ`` of stride 2. The injection
    goes into the first.

    Args:
        image_shape: height, width and channels of the injection ``x``, ``[batch, height, width, channels]``.
        channels: channels of the tiers, the finest first; two tiers at least.
        kernel_size: side of the square kernels, odd.
        m: how monotone ``I − W`` is, positive.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from; PyTorch's defaults, and gains of 1.

    Raises:
        ValueError: ``m`` is not positive, the halvings do not divide the image, or a kernel is even or larger than the
            smallest tier.

    Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, section 4.2.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        channels: Sequence[int],
        *,
        kernel_size: int = 3,
        m: float = 1.0,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        parametrisation.check_monotone(m)
        height, width, into = image_shape
        tiers, sizes = len(channels), tier_sizes(height, width, len(channels))
        check_kernel_fits(kernel_size, *sizes[-1])
        self.m, self.border, self.channels = m, kernel_size // 2, tuple(channels)
        self.shapes = tuple((rows + 2 * self.border, columns + 2 * self.border) for rows, columns in sizes)

        def kernels(pairs: Sequence[tuple[int, int]]) -> Any:
            return nnx.List([free_kernel(kernel_size, *pair, param_dtype, rngs) for pair in pairs])

        def gains(count: int) -> Any:
            return nnx.List([nnx.Param(jnp.ones((), param_dtype)) for _ in range(count)])

        same = list(zip(channels, channels, strict=True))
        self.A, self.B, self.S = kernels(same), kernels(same), kernels(list(itertools.pairwise(channels)))
        self.A_gain, self.B_gain, self.S_gain = gains(tiers), gains(tiers), gains(tiers - 1)
        self.U = Conv(into, channels[0], kernel_size, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, z: Images, x: Image) -> Images:
        """Evaluate ``f(z, x)``."""
        return self.monotone_map(x)(z)

    def monotone_map(self, x: Image) -> MonotoneMap:
        """``z ↦ f(z, x)`` with its parts, for [`deq_jax.nn.DEQ`][]."""
        _, *coarser = self.initial_state(x)
        b = (bordered(self.U(x), self.border), *coarser)
        return MonotoneMap(self.operator(), b, relu_within(self.border))

    @property
    def state_shape(self) -> tuple[int, ...]:
        """That of a sample's coarsest tier, what a head reads."""
        return (*self.shapes[-1], self.channels[-1])

    def operator(self) -> Tiers:
        """``W``."""
        A, S, B = (
            [of_norm(kernel[...], gain[...]) for kernel, gain in zip(kernels, gains, strict=True)]
            for kernels, gains in ((self.A, self.A_gain), (self.S, self.S_gain), (self.B, self.B_gain))
        )
        return parametrisation.tiers(A, S, B, self.m, self.shapes)

    def injection_norm(self) -> Float[Array, ""]:
        """An upper bound of ``‖U‖₂``."""
        return norm_bound(symbol(self.U.kernel[...], self.shapes[0]))

    def initial_state(self, x: Image) -> Images:
        """Zeros, with borders."""
        return zero_tiers(x, self.shapes, self.channels)
