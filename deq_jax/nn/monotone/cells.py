"""Monotone cells of one matrix and of one convolution: ``f(z, x) = prox(W z + U x + b)``."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from deq_jax.nn.layers.conv import Conv, Resized, uniform_by_fan_in
from deq_jax.nn.layers.convolution import Image
from deq_jax.nn.layers.weight_normalisation import of_norm
from deq_jax.nn.monotone import parametrisation
from deq_jax.operators import Circulant, Dense, MonotoneMap
from deq_jax.operators.circulant import symbol
from deq_jax.operators.matrices import norm_bound

Vectors = Float[Array, "batch features"]
Inputs = Float[Array, "batch in_features"]
Bordered = Float[Array, "batch rows columns out_channels"]


class DenseMonotoneCell(nnx.Module):
    """``f(z, x) = ReLU(W z + U x + b)`` with a dense ``W = (1 − m) I − AᵀA + B − Bᵀ``.

    It has exactly one equilibrium, whatever ``A`` and ``B``. In [`deq_jax.nn.DEQ`][] give it the solver
    [`deq_jax.peaceman_rachford`][], which finds it for all of them; others may not.

    Args:
        in_features: features of the injection ``x``, ``[batch, in_features]``.
        features: features of the state ``z``, ``[batch, features]``.
        m: how monotone ``I − W`` is, positive; the larger, the easier the solve and the smaller what the layer's
            output can change.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from, uniform in ±1/√(features), of ``U`` and ``b`` ±1/√(in_features).

    Raises:
        ValueError: ``m`` is not positive.

    Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, section 3.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        m: float = 1.0,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        parametrisation.check_monotone(m)
        square, into = uniform_by_fan_in(features), uniform_by_fan_in(in_features)
        self.m = m
        self.A = nnx.Param(square(rngs.params(), (features, features), param_dtype))
        self.B = nnx.Param(square(rngs.params(), (features, features), param_dtype))
        self.U = nnx.Param(into(rngs.params(), (in_features, features), param_dtype))
        self.b = nnx.Param(into(rngs.params(), (features,), param_dtype))

    def __call__(self, z: Vectors, x: Inputs) -> Vectors:
        """Evaluate ``f(z, x)``."""
        return self.monotone_map(x)(z)

    def monotone_map(self, x: Inputs) -> MonotoneMap:
        """``z ↦ f(z, x)`` with its parts, for [`deq_jax.nn.DEQ`][]."""
        return MonotoneMap(self.operator(), x @ self.U[...] + self.b[...][None])

    @property
    def state_shape(self) -> tuple[int, ...]:
        """That of a sample's state."""
        return self.b.shape

    def operator(self) -> Dense:
        """``W``."""
        return parametrisation.dense(self.A[...], self.B[...], self.m)

    def injection_norm(self) -> Float[Array, ""]:
        """An upper bound of ``‖U‖₂``."""
        return norm_bound(self.U[...])

    def initial_state(self, x: Inputs) -> Vectors:
        """Zeros, ``[batch, features]``."""
        return jnp.zeros((x.shape[0], *self.state_shape), x.dtype)


class ConvMonotoneCell(nnx.Module):
    """``f(z, x) = ReLU(W ∗ z + U ∗ x + b)`` with convolutions ``A`` and ``B`` in ``W = (1 − m) I − AᵀA + B − Bᵀ``.

    The state is ``[batch, height + 2p, width + 2p, channels]`` with a border of zeros as wide as half a kernel, so that
    convolutions may go around its edges, which makes ``W`` a matrix for every frequency. The kernels are normalised,
    ``A = g V / ‖V‖``, and have learned gains.

    Args:
        image_shape: height, width and channels of the injection ``x``.
        channels: channels of the state.
        kernel_size: side of the square kernels, odd.
        m: how monotone ``I − W`` is, positive.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from; PyTorch's defaults, and gains of 1.

    Raises:
        ValueError: ``m`` is not positive, or the kernel is even or larger than the image.

    Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, section 4.1.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        channels: int,
        *,
        kernel_size: int = 3,
        m: float = 1.0,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        parametrisation.check_monotone(m)
        height, width, into = image_shape
        check_kernel_fits(kernel_size, height, width)
        self.m, self.border = m, kernel_size // 2
        self.shape = (height + 2 * self.border, width + 2 * self.border)
        kernel = functools.partial(free_kernel, kernel_size, channels, channels, param_dtype, rngs)
        self.A, self.B = kernel(), kernel()
        self.A_gain, self.B_gain = (nnx.Param(jnp.ones((), param_dtype)) for _ in range(2))
        self.U = Conv(into, channels, kernel_size, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, z: Bordered, x: Image) -> Bordered:
        """Evaluate ``f(z, x)``."""
        return self.monotone_map(x)(z)

    def monotone_map(self, x: Image) -> MonotoneMap:
        """``z ↦ f(z, x)`` with its parts, for [`deq_jax.nn.DEQ`][]."""
        return MonotoneMap(self.operator(), bordered(self.U(x), self.border), relu_within(self.border))

    @property
    def state_shape(self) -> tuple[int, ...]:
        """That of a sample's state."""
        return (*self.shape, self.A.shape[-1])

    def operator(self) -> Circulant:
        """``W``."""
        A, B = of_norm(self.A[...], self.A_gain[...]), of_norm(self.B[...], self.B_gain[...])
        return parametrisation.circulant(A, B, self.m, self.shape)

    def injection_norm(self) -> Float[Array, ""]:
        """An upper bound of ``‖U‖₂``."""
        return norm_bound(symbol(self.U.kernel[...], self.shape))

    def initial_state(self, x: Image) -> Bordered:
        """Zeros, with a border."""
        return jnp.zeros((x.shape[0], *self.state_shape), x.dtype)


def check_kernel_fits(kernel_size: int, height: int, width: int) -> None:
    """Raise a ValueError unless the kernel is no larger than the image."""
    if kernel_size > min(height, width):
        raise ValueError(
            f"kernel_size {kernel_size} exceeds an image of {height}×{width}; choose at most {min(height, width)}."
        )


def free_kernel(side: int, channels: int, out_channels: int, param_dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Param:
    """A kernel that is drawn as PyTorch does."""
    uniform = uniform_by_fan_in(side * side * channels)
    return nnx.Param(uniform(rngs.params(), (side, side, channels, out_channels), param_dtype))


def bordered(x: Image, border: int) -> Resized:
    """The images within a border of zeros."""
    return jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))


def interior(z: Image, border: int) -> Resized:
    """The images without their border."""
    return z[:, border : z.shape[1] - border, border : z.shape[2] - border]


@functools.cache
def relu_within(border: int) -> Callable[[PyTree], PyTree]:
    """ReLU, and zero on the border: the projection onto the cone of images that are so."""
    return lambda z: jax.tree.map(lambda image: bordered(jax.nn.relu(interior(image, border)), border), z)
