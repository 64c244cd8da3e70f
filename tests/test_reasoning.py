import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deq_jax import nn


def cell(**changes):
    return nn.RecallCell(4, 6, rngs=nnx.Rngs(0), **changes)


def test_a_place_is_scaled_to_length_one_and_its_scale():
    norm = nn.RMSNorm(3)
    norm.scale[...] = jnp.array([1.0, 2.0, 3.0])
    z = jnp.array([[[3.0, 0.0, 4.0], [300.0, 0.0, 400.0]]])
    np.testing.assert_allclose(norm(z)[0, 1], np.array([3, 0, 12]) / np.sqrt(25 / 3), rtol=1e-4)
    np.testing.assert_allclose(norm(z)[0, 0], norm(z)[0, 1], rtol=1e-4)
    with pytest.raises(ValueError, match=r"RMSNorm takes \[batch, ..., 3\]"):
        norm(jnp.ones((1, 2)))


def test_a_recall_cell_sees_its_neighbourhood_and_no_further(x64):
    """A reach of one in each of two convolutions, whatever the size of the grid."""
    of = nn.RecallCell(4, 6, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    x = jax.random.normal(jax.random.key(0), (1, 9, 9, 6))
    z = jax.random.normal(jax.random.key(1), (1, 9, 9, 4))
    small = of(z[:, :7, :7], x[:, :7, :7])
    np.testing.assert_allclose(of(z, x)[:, :5, :5], small[:, :5, :5])
    assert abs(of(z, x)[:, :6, :6] - small[:, :6, :6]).max() > 1e-3
    moved = of(z, x.at[0, 4, 4].add(1.0)) != of(z, x)
    assert moved.any(-1)[0, 3:6, 3:6].all()
    assert not moved.at[:, 3:6, 3:6].set(False).any()


def test_a_string_is_a_grid_of_one_row():
    of = cell(kernel_size=(1, 3))
    x = jnp.ones((2, 1, 12, 6))
    assert of(of.initial_state(x), x).shape == (2, 1, 12, 4)
    assert of.conv1.kernel.shape == (1, 3, 4, 6)
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        cell(kernel_size=(1, 2))


def test_a_mixing_cell_hears_of_row_column_and_box_alone():
    of = nn.MixingCell(4, 6, box=(2, 3), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 6))
    z = jax.random.normal(jax.random.key(1), (1, 6, 6, 4))
    moved = abs(of(z.at[0, 2, 4].add(1.0), x) - of(z, x)).max(-1)[0] > 1e-6
    expected = np.zeros((6, 6), bool)
    expected[2], expected[:, 4], expected[2:4, 3:6] = True, True, True
    np.testing.assert_array_equal(moved, expected)
    with pytest.raises(ValueError, match="boxes of 2×3 places do not cover a grid of 4×4"):
        of(z[:, :4, :4], x[:, :4, :4])


def test_a_mixing_cell_does_not_care_in_which_order_the_rows_of_a_box_come():
    of = nn.MixingCell(4, 6, box=(2, 3), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 6))
    z = jax.random.normal(jax.random.key(1), (1, 6, 6, 4))
    rows = np.array([1, 0, 4, 5, 2, 3])
    np.testing.assert_allclose(of(z[:, rows], x[:, rows]), of(z, x)[:, rows], rtol=1e-4, atol=1e-5)
