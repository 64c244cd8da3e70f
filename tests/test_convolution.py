import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec
from jax.test_util import check_grads

from deq_jax.nn.layers import convolution
from deq_jax.nn.layers.convolution import conv, flipped, kernel_gradient, transposed_conv


def stock_conv(x, kernel, stride=1):
    """What comes of every place, and of those only every so many kept."""
    y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y[:, ::stride, ::stride]


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (1, 2), (5, 3)])
def test_convolution_and_its_derivatives_are_the_stock_ones(x64, size, stride):
    x = jax.random.normal(jax.random.key(0), (2, 6, 5, 3))
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 4))
    ours, stock = (functools.partial(function, stride=stride) for function in (conv, stock_conv))
    np.testing.assert_allclose(ours(x, kernel), stock(x, kernel), rtol=1e-12)
    y = jax.random.normal(jax.random.key(2), stock(x, kernel).shape)
    for one, other in zip(jax.vjp(ours, x, kernel)[1](y), jax.vjp(stock, x, kernel)[1](y), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)  # float64, sums of 180 terms
    check_grads(jax.jit(ours), (x, kernel), order=2, modes=["rev"])


@pytest.mark.parametrize("stride", [1, 2])
def test_a_transposed_convolution_s_derivatives_are_right_in_its_kernel_too(x64, stride):
    y = jax.random.normal(jax.random.key(0), (2, 3, 2, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 3))
    size = 3 * stride, 2 * stride
    transposed = jax.jit(lambda y, kernel: transposed_conv(y, kernel, stride, size))
    check_grads(transposed, (y, flipped(kernel)), order=2, modes=["rev"])


@pytest.mark.parametrize("stride", [1, 2])
def test_a_transposed_convolution_in_a_loop_is_about_as_fast_as_a_forward_one(stride):
    x = jax.random.normal(jax.random.key(0), (16, 32, 32, 32))
    kernel = 0.05 * jax.random.normal(jax.random.key(1), (3, 3, 32, 32))
    small = x[:, ::stride, ::stride]

    def repeat(step, start):
        """Each step depends on the one before, or it would be taken out of the loop."""
        return lax.fori_loop(0, 10, lambda _, y: y + 1e-3 * jnp.mean(step(y)), start)

    def transposed(kernel):
        _, pull_back = jax.vjp(lambda x: conv(x, kernel, stride), x)
        return repeat(lambda y: pull_back(y)[0], small)

    forward = jax.jit(lambda kernel: repeat(lambda y: conv(y, kernel, stride), x))
    backward = jax.jit(transposed)

    def seconds(function):
        start = time.perf_counter()
        jax.block_until_ready(function(kernel))
        return time.perf_counter() - start

    seconds(forward), seconds(backward)
    # A ratio, and the best of several tries: a busy machine slows either, the cliff slows one by more than ten times.
    assert any(seconds(backward) <= 4 * seconds(forward) for _ in range(10))


def stock_kernel_gradient(x, y, like):
    return jax.linear_transpose(lambda kernel: stock_conv(x, kernel), like)(y)[0]


def drawn(batch, dtype=jnp.float32, side=3):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (batch, 6, 5, 3), (batch, 6, 5, 4), (side, side, 3, 4)
    return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]


@pytest.mark.parametrize("images_at_once", [1, 2, 7, 100])
@pytest.mark.parametrize("batch", [1, 7, 8])
def test_the_kernels_gradient_is_the_stock_one_however_many_images_are_laid_out_at_once(
    x64, monkeypatch, batch, images_at_once
):
    monkeypatch.setattr(convolution, "PATCH_BYTES", images_at_once * 9 * 6 * 5 * 3 * 8)
    x, y, like = drawn(batch, jnp.float64)
    np.testing.assert_allclose(
        jax.jit(kernel_gradient)(x, y, like), stock_kernel_gradient(x, y, like), rtol=1e-10, atol=1e-12
    )


def test_no_images_have_no_gradient():
    images, kernel = jnp.zeros((0, 4, 4, 2)), jnp.ones((3, 3, 2, 5))
    x_bar, kernel_bar = jax.grad(lambda x, kernel: jnp.sum(conv(x, kernel)), argnums=(0, 1))(images, kernel)
    assert x_bar.shape == images.shape
    np.testing.assert_array_equal(kernel_bar, jnp.zeros_like(kernel))


def test_the_kernels_gradient_can_be_differentiated_twice(x64):
    check_grads(jax.jit(kernel_gradient), drawn(2, jnp.float64), order=2, modes=["rev"])


def test_half_precision_sums_are_taken_in_float32():
    x, y, like = drawn(64, jnp.bfloat16)
    exact = stock_kernel_gradient(*(a.astype(jnp.float32) for a in (x, y, like)))
    found = jax.jit(kernel_gradient)(x, y, like)
    assert found.dtype == jnp.bfloat16
    # bfloat16 holds 8 bits: half a unit in the last place is 2^-9 of a number.
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=2**-8, atol=2**-8)


def test_the_kernels_gradient_maps_over_a_batch_and_over_devices():
    x, y, like = drawn(8)
    expected = stock_kernel_gradient(x, y, like)
    halves = [a.reshape(2, 4, *a.shape[1:]) for a in (x, y)]
    mapped = jax.jit(jax.vmap(kernel_gradient, in_axes=(0, 0, None)))(*halves, like)
    np.testing.assert_allclose(mapped.sum(0), expected, rtol=1e-5, atol=1e-5)
    mesh = jax.make_mesh((jax.device_count(),), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    batch, whole = PartitionSpec("devices"), PartitionSpec()

    def summed(x, y, like):
        return lax.psum(kernel_gradient(x, y, lax.pcast(like, "devices", to="varying")), "devices")

    sharded = jax.shard_map(summed, mesh=mesh, in_specs=(batch, batch, whole), out_specs=whole)
    np.testing.assert_allclose(jax.jit(sharded)(x, y, like), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_derivatives_through_a_loop_are_those_of_the_loop_written_out_to_the_third(x64, stride):
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    kernel = 0.2 * jax.random.normal(jax.random.key(1), (3, 3, 3, 3))

    def layer(x, kernel):
        return jnp.tanh(conv(x, kernel, stride).repeat(stride, 1).repeat(stride, 2))

    def scanned(x, kernel):
        return jnp.sum(lax.scan(lambda x, _: (layer(x, kernel), None), x, length=2)[0] ** 3)

    def written_out(x, kernel):
        return jnp.sum(layer(layer(x, kernel), kernel) ** 3)

    def squared_gradient(loss):
        return lambda x, kernel: sum(jnp.sum(g**2) for g in jax.grad(loss, argnums=(0, 1))(x, kernel))

    for _ in range(3):
        for looped, plain in zip(
            *(jax.jit(jax.grad(loss, (0, 1)))(x, kernel) for loss in (scanned, written_out)), strict=True
        ):
            np.testing.assert_allclose(looped, plain, rtol=1e-10, atol=1e-12)  # float64, the same sums in another order
        scanned, written_out = squared_gradient(scanned), squared_gradient(written_out)
