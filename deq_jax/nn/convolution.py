"""Convolution that is fast inside a solver's loop, forward and transposed, and its kernel's gradient, fast after it.

They are one family: the derivatives of either are made of the two, to any order.
"""

import jax
import jax.numpy as jnp
from jax import export, lax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from deq_jax.gradients.kept import kept_for_backward
from deq_jax.states.spread import AXIS, devices_of, on_each_device
from deq_jax.states.varying import varying_like

Image = Float[Array, "batch height width channels"]
Kernel = Float[Array, "rows columns channels out_channels"]
Convolved = Float[Array, "batch height width out_channels"]

PATCH_BYTES = 2**23
"""Neighbourhoods are laid out for about as many bytes of images at a time as a processor's caches hold."""


def conv(x: Image, kernel: Kernel) -> Convolved:
    """Convolution with stride 1 and zero padding that keeps the size; the kernel's sides are odd.

    Its vector-Jacobian product is another such convolution, by the kernel flipped and with its channels swapped. The
    flipped kernel is a saved residual and so is made outside the solver's loop: written in the loop, the flip would be
    folded into the convolution, and on a CPU cost more than twenty times the convolution.
    """
    return _conv(*_varying_alike(x, kernel))


@jax.custom_vjp
def _conv(x: Image, kernel: Kernel) -> Convolved:
    return plain_conv(x, kernel)


def plain_conv(x: Image, kernel: Kernel, stride: int = 1) -> Float[Array, "batch out_height out_width out_channels"]:
    """Convolution, padded alike on both sides whatever the stride, where "SAME" would shift the image by a pixel."""
    padding = [(side // 2, side // 2) for side in kernel.shape[:2]]
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def kernel_gradient(x: Image, y: Convolved, like: Kernel) -> Kernel:
    """The cotangent of `conv`'s kernel: ``K̄[i, j, c, o] = Σ x[b, h+i, w+j, c] · y[b, h, w, o]``, shaped ``like`` it.

    On a CPU it is a matrix product for a few images at a time, of their neighbourhoods laid out as rows; the
    compiler's own takes the images' pixels for a kernel of that size. Elsewhere it is the compiler's own. Where a mesh
    spreads the images over devices, each sums over its own first.
    """
    if devices_of(x.shape[0]) == 1:
        return _kernel_gradient(*_varying_alike(x, y, like))

    def own(x: Image, y: Convolved) -> Kernel:
        return lax.psum(_kernel_gradient(*_varying_alike(x, y, like)), AXIS)

    return on_each_device(own, x, y, out=P())


@jax.custom_vjp
def _kernel_gradient(x: Image, y: Convolved, like: Kernel) -> Kernel:
    return lax.platform_dependent(x, y, like, cpu=_by_neighbourhoods, default=_by_transposition)


def flipped(kernel: Kernel) -> Float[Array, "rows columns out_channels channels"]:
    """The kernel by which the transposed convolution convolves."""
    # The barrier keeps the compiler from moving the flip to where the kernel is used.
    return lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))


def _by_transposition(x: Image, y: Convolved, like: Kernel) -> Kernel:
    (kernel_bar,) = jax.linear_transpose(lambda kernel: plain_conv(x, kernel), like)(y)
    return kernel_bar


def _by_neighbourhoods(x: Image, y: Convolved, like: Kernel) -> Kernel:
    batch, height, width, channels = x.shape
    rows, columns, _, out_channels = like.shape
    wide = jnp.promote_types(x.dtype, jnp.float32)
    padded = jnp.pad(x, ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))
    per_image = rows * columns * height * width * channels * x.dtype.itemsize
    images = 1 if export.is_symbolic_dim(batch) else _chunk(batch, per_image)

    def product(pair: tuple[Array, Array]) -> Float[Array, "out_channels neighbourhood"]:
        padded, y = pair
        shifts = [padded[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
        # The barriers keep both operands as they are laid out here: the product is fast in this form.
        neighbourhoods = lax.optimization_barrier(jnp.concatenate(shifts, axis=-1).reshape(-1, like[..., 0].size))
        transposed = lax.optimization_barrier(y.reshape(-1, out_channels).T)
        return jnp.matmul(transposed, neighbourhoods, preferred_element_type=wide)

    def chunks(a: Array) -> Array:
        return a.reshape(batch // images, images, *a.shape[1:])

    sums = jnp.sum(lax.map(product, (chunks(padded), chunks(y))), axis=0)
    return sums.T.reshape(like.shape).astype(like.dtype)


def _chunk(batch: int, per_image: int) -> int:
    """The largest divisor of ``batch`` whose images' neighbourhoods fit into ``PATCH_BYTES``, and 1 if none does."""
    return max((n for n in range(1, batch + 1) if batch % n == 0 and n * per_image <= PATCH_BYTES), default=1)


def _varying_alike(*arrays: Array) -> tuple[Array, ...]:
    """Within ``jax.shard_map`` a replicated kernel counts as each device's own; its gradient is then summed by JAX."""
    return varying_like(arrays, arrays)


def _conv_forward(x: Image, kernel: Kernel) -> tuple[Convolved, tuple[Image, Kernel, Array]]:
    return _conv(x, kernel), (*kept_for_backward((x, kernel)), flipped(kernel))


def _conv_backward(residuals: tuple[Image, Kernel, Array], y: Convolved) -> tuple[Image, Kernel]:
    x, kernel, transposed = residuals
    return conv(y, transposed), kernel_gradient(x, y, kernel)


def _gradient_forward(x: Image, y: Convolved, like: Kernel) -> tuple[Kernel, tuple[Image, Convolved, Kernel]]:
    return _kernel_gradient(x, y, like), kept_for_backward((x, y, like))


def _gradient_backward(residuals: tuple[Image, Convolved, Kernel], bar: Kernel) -> tuple[Image, Convolved, Kernel]:
    x, y, like = residuals
    return conv(y, flipped(bar)), conv(x, bar), jnp.zeros_like(like)


_conv.defvjp(_conv_forward, _conv_backward)
_kernel_gradient.defvjp(_gradient_forward, _gradient_backward)
