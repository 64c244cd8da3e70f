"""Convolution that is fast inside a solver's loop, forward and transposed, and its kernel's gradient, fast after it.

They are one family: the derivatives of each are made of the others, to any order.
"""

import functools

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
Convolved = Float[Array, "batch out_height out_width out_channels"]
Flipped = Float[Array, "rows columns out_channels channels"]
Size = tuple[int, int]

PATCH_BYTES = 2**23
"""Neighbourhoods are laid out for about as many bytes of images at a time as a processor's caches hold."""


def conv(x: Image, kernel: Kernel, stride: int = 1) -> Convolved:
    """Convolution with zero padding; the kernel's sides are odd. It keeps every ``stride``-th row and column.

    Its vector-Jacobian product is a convolution, too, by the kernel flipped and with its channels swapped. The
    flipped kernel is a saved residual and so is made outside the solver's loop: written in the loop, the flip would be
    folded into the convolution, and on a CPU cost more than ten times the convolution.
    """
    return _conv(*_varying_alike(x, kernel), stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: Image, kernel: Kernel, stride: int) -> Convolved:
    return plain_conv(x, kernel, stride)


def plain_conv(x: Image, kernel: Kernel, stride: int = 1) -> Convolved:
    """Convolution, padded alike on both sides whatever the stride, where "SAME" would shift the image by a pixel."""
    padding = [(side // 2, side // 2) for side in kernel.shape[:2]]
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def transposed_conv(y: Convolved, transposed: Flipped, stride: int, size: Size) -> Image:
    """`conv` of images of this height and width by a kernel, transposed; the kernel is given as `flipped` makes it."""
    if stride == 1:
        return conv(y, transposed)
    return _transposed_conv(*_varying_alike(y, transposed), stride, size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _transposed_conv(y: Convolved, transposed: Flipped, stride: int, size: Size) -> Image:
    halves = [side // 2 for side in transposed.shape[:2]]
    spread = [(side - 1) * stride + 1 for side in y.shape[1:3]]  # with zeros between its rows and columns
    padding = [(half, half + whole - side) for half, whole, side in zip(halves, size, spread, strict=True)]
    return lax.conv_general_dilated(
        y, transposed, (1, 1), padding, lhs_dilation=(stride, stride), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def kernel_gradient(x: Image, y: Convolved, like: Kernel, stride: int = 1) -> Kernel:
    """The cotangent of `conv`'s kernel: ``K̄[i, j, c, o] = Σ x[b, sh+i, sw+j, c] · y[b, h, w, o]``, shaped ``like`` it.

    On a CPU it is a matrix product for a few images at a time, of their neighbourhoods laid out as rows; the
    compiler's own takes the images' pixels for a kernel of that size, and in a loop with a stride costs more than
    twenty times as much. Elsewhere it is the compiler's own. Where a mesh spreads the images over devices, each sums
    over its own first.
    """
    if devices_of(x.shape[0]) == 1:
        return _kernel_gradient(*_varying_alike(x, y, like), stride)

    def own(x: Image, y: Convolved) -> Kernel:
        return lax.psum(_kernel_gradient(*_varying_alike(x, y, like), stride), AXIS)

    return on_each_device(own, x, y, out=P())


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _kernel_gradient(x: Image, y: Convolved, like: Kernel, stride: int) -> Kernel:
    by_neighbourhoods = functools.partial(_by_neighbourhoods, stride=stride)
    by_transposition = functools.partial(_by_transposition, stride=stride)
    return lax.platform_dependent(x, y, like, cpu=by_neighbourhoods, default=by_transposition)


def flipped(kernel: Kernel) -> Flipped:
    """The kernel by which the transposed convolution convolves."""
    # The barrier keeps the compiler from moving the flip to where the kernel is used.
    return lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))


def _by_transposition(x: Image, y: Convolved, like: Kernel, stride: int) -> Kernel:
    (kernel_bar,) = jax.linear_transpose(lambda kernel: plain_conv(x, kernel, stride), like)(y)
    return kernel_bar


def _by_neighbourhoods(x: Image, y: Convolved, like: Kernel, stride: int) -> Kernel:
    batch, channels = x.shape[0], x.shape[-1]
    height, width = y.shape[1:3]
    rows, columns, _, out_channels = like.shape
    wide = jnp.promote_types(x.dtype, jnp.float32)
    padded = jnp.pad(x, ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))
    per_image = rows * columns * height * width * channels * x.dtype.itemsize
    images = 1 if export.is_symbolic_dim(batch) else _chunk(batch, per_image)

    def product(pair: tuple[Array, Array]) -> Float[Array, "out_channels neighbourhood"]:
        padded, y = pair
        ends = (height - 1) * stride + 1, (width - 1) * stride + 1
        shifts = [
            padded[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i in range(rows) for j in range(columns)
        ]
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


def _conv_forward(x: Image, kernel: Kernel, stride: int) -> tuple[Convolved, tuple[Image, Kernel, Array]]:
    return _conv(x, kernel, stride), (*kept_for_backward((x, kernel)), flipped(kernel))


def _conv_backward(stride: int, residuals: tuple[Image, Kernel, Array], y: Convolved) -> tuple[Image, Kernel]:
    x, kernel, transposed = residuals
    return transposed_conv(y, transposed, stride, _size(x)), kernel_gradient(x, y, kernel, stride)


def _transposed_forward(
    y: Convolved, transposed: Flipped, stride: int, size: Size
) -> tuple[Image, tuple[Convolved, Array]]:
    return _transposed_conv(y, transposed, stride, size), (*kept_for_backward((y,)), flipped(transposed))


def _transposed_backward(
    stride: int, size: Size, residuals: tuple[Convolved, Array], x: Image
) -> tuple[Convolved, Flipped]:
    del size
    y, kernel = residuals
    return conv(x, kernel, stride), flipped(kernel_gradient(x, y, kernel, stride))


def _size(x: Image) -> Size:
    return x.shape[1], x.shape[2]


def _gradient_forward(
    x: Image, y: Convolved, like: Kernel, stride: int
) -> tuple[Kernel, tuple[Image, Convolved, Kernel]]:
    return _kernel_gradient(x, y, like, stride), kept_for_backward((x, y, like))


def _gradient_backward(
    stride: int, residuals: tuple[Image, Convolved, Kernel], bar: Kernel
) -> tuple[Image, Convolved, Kernel]:
    x, y, like = residuals
    x_bar = transposed_conv(y, flipped(bar), stride, _size(x))
    return x_bar, conv(x, bar, stride), jnp.zeros_like(like)


_conv.defvjp(_conv_forward, _conv_backward)
_transposed_conv.defvjp(_transposed_forward, _transposed_backward)
_kernel_gradient.defvjp(_gradient_forward, _gradient_backward)
