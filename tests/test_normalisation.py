import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from deq_jax.nn import BatchNorm, Conv, GroupNorm
from deq_jax.nn.layers.normalisation import centred_in_one_pass, group_norm
from tests.unchecked import unchecked


@pytest.fixture(params=["cpu", "gpu"])
def way(request, monkeypatch):
    """Moments in two passes, as on a CPU, and in one, as on accelerators."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)


@pytest.mark.usefixtures("way")
def test_group_norm_normalises_each_group_of_each_sample():
    x = 3 + 5 * jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
    y = group_norm(x, jnp.ones(6), jnp.zeros(6), num_groups=3, epsilon=0.0)
    groups = y.reshape(2, 16, 3, 2)
    np.testing.assert_allclose(groups.mean((1, 3)), 0, atol=1e-6)  # float32
    np.testing.assert_allclose(groups.var((1, 3)), 1, rtol=1e-5)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("mean", [0.0, 1e3, 1e4])
def test_group_norm_bears_a_large_mean(mean):
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 8)).astype(np.float32) + np.float32(mean)
    groups = x.astype(np.float64).reshape(2, 256, 2, 4)
    centred = groups - groups.mean((1, 3), keepdims=True)
    expected = (centred / np.sqrt(groups.var((1, 3), keepdims=True) + 1e-5)).reshape(x.shape)
    y = group_norm(jnp.asarray(x), jnp.ones(8), jnp.zeros(8), num_groups=2, epsilon=1e-5)
    # float32 knows x to mean · 6e-8, and so y, whose deviation is 1, to that.
    np.testing.assert_allclose(y, expected, atol=2e-6 + 1e-7 * mean)


def test_a_first_number_far_from_all_others_costs_group_norm_few_digits():
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 8)).astype(np.float32)
    x[:, 0, 0] = 1e4
    _, variance = centred_in_one_pass(jnp.asarray(x), 2)
    expected = x.astype(np.float64).reshape(2, 256, 2, 4).var((1, 3))
    np.testing.assert_allclose(variance.reshape(2, 2, 4)[..., 0], expected, rtol=1024 * 6e-8)  # numbers in a group


@pytest.mark.usefixtures("way")
def test_group_norm_and_its_derivatives_are_the_stock_ones(x64):
    stock = nnx.GroupNorm(6, num_groups=3, epsilon=1e-5, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 4, 3, 6))
    scale, bias = jax.random.normal(jax.random.key(1), (2, 6))
    y = jax.random.normal(jax.random.key(2), x.shape)
    stock.scale[...], stock.bias[...] = scale, bias

    def ours(x):
        return group_norm(x, scale, bias, num_groups=3, epsilon=1e-5)

    np.testing.assert_allclose(ours(x), stock(x), rtol=1e-9)
    np.testing.assert_allclose(jax.vjp(ours, x)[1](y)[0], jax.vjp(stock, x)[1](y)[0], rtol=1e-8, atol=1e-10)
    with_parameters = jax.jit(functools.partial(group_norm, num_groups=3, epsilon=1e-5))
    check_grads(with_parameters, (x, scale, bias), order=2, modes=["rev"])


@pytest.mark.usefixtures("way")
def test_group_norm_of_a_constant_is_its_bias():
    y = group_norm(jnp.full((1, 2, 2, 4), 7.0), jnp.ones(4), jnp.arange(4.0), num_groups=2, epsilon=1e-5)
    np.testing.assert_allclose(y[0, 0, 0], jnp.arange(4.0), atol=0.02)  # rounding over √epsilon


@pytest.mark.usefixtures("way")
def test_half_precision_moments_are_taken_in_float32():
    x = 10 + jax.random.normal(jax.random.key(0), (1, 32, 32, 4))
    wide = group_norm(x, jnp.ones(4), jnp.zeros(4), num_groups=2, epsilon=1e-5)
    half = group_norm(x.astype(jnp.bfloat16), jnp.ones(4), jnp.zeros(4), num_groups=2, epsilon=1e-5)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), wide, atol=0.06)  # bfloat16 rounds 10 to 1/16


def test_batch_norm_keeps_pytorch_s_running_averages():
    norm = BatchNorm(2)
    x = jnp.array([[1.0, 10.0], [3.0, 30.0], [5.0, 20.0]])
    y = norm(x)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(y[:, 0], (x[:, 0] - 3) / np.sqrt(8 / 3 + 1e-5), rtol=1e-5)  # the biased variance
    np.testing.assert_allclose(norm.mean[...], [0.3, 2.0], rtol=1e-6)
    np.testing.assert_allclose(norm.var[...], [0.9 + 0.1 * 4, 0.9 + 0.1 * 100], rtol=1e-6)  # the unbiased one
    norm.eval()
    before = norm.mean[...]
    np.testing.assert_allclose(norm(x)[:, 0], (x[:, 0] - 0.3) / np.sqrt(1.3 + 1e-5), rtol=1e-5)
    np.testing.assert_array_equal(norm.mean[...], before)


@pytest.mark.parametrize(("dtype", "param_dtype"), [(jnp.bfloat16, jnp.bfloat16), (jnp.float64, jnp.float32)])
def test_batch_norm_s_averages_keep_their_dtype(x64, dtype, param_dtype):
    norm = BatchNorm(2, param_dtype=param_dtype)
    norm(jnp.ones((3, 2), dtype))
    assert norm.mean.dtype == norm.var.dtype == param_dtype
    np.testing.assert_allclose(np.asarray(norm.mean[...], float), 0.1, rtol=1e-2)  # bfloat16


@pytest.mark.parametrize("layer", [GroupNorm(8, 2), BatchNorm(8)])
@pytest.mark.parametrize("shape", [(2, 4, 4, 1), (8,)])
def test_another_number_of_channels_is_refused(layer, shape):
    with pytest.raises(ValueError, match=r"takes \[batch, ..., 8\], channels last"):
        unchecked(type(layer).__call__)(layer, jnp.ones(shape))


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="odd"):
        Conv(3, 4, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="kernel_size must be a whole number"):
        unchecked(Conv.__init__)(nnx.Module.__new__(Conv), 3, 4, (3, 2.5), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="6 channels do not fall into 4 groups"):
        GroupNorm(6, 4)


@pytest.mark.parametrize("make", [functools.partial(GroupNorm, num_groups=2), BatchNorm])
def test_without_scale_and_bias_there_is_nothing_to_learn(make):
    plain, learned = make(4, is_affine=False), make(4)
    assert not jax.tree.leaves(nnx.state(plain, nnx.Param))
    x = 3 + 5 * jax.random.normal(jax.random.key(0), (6, 3, 3, 4))
    np.testing.assert_allclose(plain(x), learned(x), atol=1e-6)
    with pytest.raises(ValueError, match=r"takes \[batch, \.\.\., 4\]"):
        plain(x[..., :1])
