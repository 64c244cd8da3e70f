import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deq_jax.states import norms

WAYS = [norms._norms_in_one_pass, norms._norms_in_two_passes]  # of other platforms, and of a CPU


@pytest.mark.parametrize(
    ("fz", "z", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.0], [3.0, 3.5], 0.1),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [1.0, 0.0], np.inf),
        ([np.nan, 0.0], [1.0, 0.0], np.nan),
        ([np.inf, 0.0], [1.0, 0.0], np.nan),
    ],
)
def test_relative_residual(fz, z, expected):
    residual = norms.relative_residual(jnp.array([fz]), jnp.array([z]))
    np.testing.assert_allclose(residual, [expected], rtol=1e-6)  # float32


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [1e-36, 1e-30, 1.0, 1e30, 1e38, 2e38])
def test_a_norm_is_right_up_to_the_ends_of_the_dtype_s_range(size, way):
    (norm,) = jax.jit(way)(jnp.array([[0.6 * size, 0.8 * size]], jnp.float32))
    np.testing.assert_allclose(norm, np.float32(size), rtol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [1e-300, 1e-150, 1.0, 1e150, 1e300])
def test_in_double_precision_too(size, way):
    (norm,) = jax.jit(way)(jnp.array([[0.6 * size, 0.8 * size]]))
    np.testing.assert_allclose(norm, size, rtol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_a_norm_says_what_is_not_finite(way):
    norm, zero = jax.jit(way)(jnp.array([[jnp.nan, 1.0], [-jnp.inf, 1.0]]), jnp.zeros((2, 1)))
    np.testing.assert_array_equal(norm, [jnp.nan, jnp.inf])
    np.testing.assert_array_equal(zero, [0, 0])


@pytest.mark.parametrize("size", [1e-30, 3.0, 1e30])
def test_a_unit_scales_a_sample_to_numbers_near_one(size):
    unit = norms.sample_unit(jnp.array([[size, -size / 3]], jnp.float32))
    assert 0.5 <= size / unit[0] <= 2
    assert jnp.frexp(unit)[0] == 0.5  # a power of two
