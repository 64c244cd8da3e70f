"""Convolutions around the edges of an image, which the Fourier transform turns into a small matrix a frequency.

One that keeps every second pixel is no such multiplication. It is one on the image of half the side whose channels are
the pixels of every 2×2 block, its phases: so a symbol may take an image in phases, or give one.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from deq_jax.operators.matrices import accretive_inverse, adjoint_of, from_identity, norm_bound, product
from deq_jax.operators.operator import Held
from deq_jax.settings import Scalar

Image = Float[Array, "batch height width channels"]
Resized = Float[Array, "batch out_height out_width out_channels"]
Kernel = Float[Array, "rows columns channels out_channels"]
Symbol = Complex[Array, "frequencies half out in"]
"""A matrix for every frequency of a real image, of which the last axis needs half only."""


def symbol(kernel: Kernel, shape: tuple[int, int], *, phases: int = 1, stride: int = 1) -> Symbol:
    """What multiplies an image of this height and width, in phases, for a convolution around its edges.

    ``y[p] = Σ_k kernel[k] x[stride · p + k − centre]``, ``stride`` 1 or ``phases``. The columns are the transformed
    answers to a one in each phase and channel.

    Raises:
        ValueError: the kernel is larger than the image, has even sides, or the phases do not divide it.
    """
    (height, width), (rows, columns, channels, out_channels) = shape, kernel.shape
    if rows > height or columns > width or not rows % 2 or not columns % 2:
        raise ValueError(f"a kernel of {rows}×{columns} does not fit an image of {height}×{width}: its sides are odd.")
    if height % phases or width % phases:
        raise ValueError(f"{phases}×{phases} phases do not divide an image of {height}×{width}.")
    wide = jnp.pad(kernel[::-1, ::-1], ((0, height - rows), (0, width - columns), (0, 0), (0, 0)))
    response = jnp.roll(wide, (-(rows // 2), -(columns // 2)), axis=(0, 1))
    moves = [(i, j) for i in range(phases) for j in range(phases)]
    responses = jnp.stack([jnp.roll(response, move, axis=(0, 1)) for move in moves], axis=2)
    split = responses.reshape(height // phases, phases, width // phases, phases, -1, out_channels)
    if stride > 1:
        split = split[:, :1, :, :1]
    by_output = jnp.einsum("hpwqio->hwpqoi", split)
    answers = by_output.reshape(height // phases, width // phases, -1, phases * phases * channels)
    return jnp.fft.rfft2(answers, axes=(0, 1))


def filtered(matrices: Symbol, z: Image, *, phases: tuple[int, int] = (1, 1)) -> Resized:
    """The image that a symbol makes of another; ``phases`` are those of what comes in and of what goes out."""
    into, out = phases
    x = _split(z, into)
    spectrum = jnp.fft.rfft2(jnp.moveaxis(x, 3, 1))
    by_frequency = jnp.moveaxis(spectrum, (2, 3), (0, 1))  # [frequencies, half, batch, in]
    multiplied = product(by_frequency, jnp.swapaxes(matrices, 2, 3))
    y = jnp.fft.irfft2(jnp.moveaxis(multiplied, (0, 1), (2, 3)), s=x.shape[1:3])
    return _joined(jnp.moveaxis(y, 1, 3), out)


def _split(z: Image, phases: int) -> Resized:
    batch, height, width, channels = z.shape
    blocks = z.reshape(batch, height // phases, phases, width // phases, phases, channels)
    return jnp.moveaxis(blocks, 2, 3).reshape(batch, height // phases, width // phases, -1)


def _joined(z: Image, phases: int) -> Resized:
    batch, height, width, _channels = z.shape
    blocks = jnp.moveaxis(z.reshape(batch, height, width, phases, phases, -1), 3, 2)
    return blocks.reshape(batch, height * phases, width * phases, -1)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["matrices", "m"], meta_fields=["phases"])
@dataclasses.dataclass(frozen=True)
class Circulant:
    """A convolution ``W`` around the edges of images ``[batch, height, width, channels]`` as an operator.

    Args:
        matrices: its symbol, ``I − (W + Wᴴ)/2 ⪰ m I`` at every frequency.
        m: how monotone it is, positive.
        phases: those of the symbol.

    Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, section 4.1 and appendix D.
    """

    matrices: Held
    m: Held
    phases: int = 1

    def __call__(self, z: Image) -> Image:
        """``W z`` of every sample."""
        return self._filtered(self.matrices, z)

    def transposed(self) -> "Circulant":
        """``Wᵀ``."""
        return dataclasses.replace(self, matrices=adjoint_of(self.matrices))

    def resolvent(self, alpha: Scalar) -> Callable[[Image], Image]:
        """``v ↦ (I + alpha (I − W))⁻¹ v``, by an inverse for every frequency."""
        eye = jnp.eye(self.matrices.shape[-1], dtype=self.matrices.dtype)
        inverse = accretive_inverse(eye + alpha * from_identity(self.matrices))
        return lambda v: self._filtered(inverse, v)

    def norm(self) -> Float[Array, ""]:
        """An upper bound of ``‖I − W‖₂``."""
        return norm_bound(from_identity(self.matrices))

    def _filtered(self, matrices: Symbol, z: Image) -> Image:
        return filtered(matrices, z, phases=(self.phases, self.phases))
