import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax
from tests.problems import linear_map, tanh_network


@pytest.fixture
def dense(x64):
    """A tanh network, its equilibrium, and the dense Jacobian of each sample there."""
    f, w, x = tanh_network(jax.random.key(0), 3, 12, radius=1.2, dtype=jnp.float64)
    z = deq_jax.anderson(lambda z: f(z, x, w), jnp.zeros_like(x), tol=1e-10, max_iter=300).value
    jacobians = jax.vmap(jax.jacobian(lambda z, x: jnp.tanh(z @ w) + x))(z, x)
    return (lambda z, w=w: f(z, x, w)), w, z, jacobians


def test_the_spectral_radius_is_that_of_the_dense_jacobian(dense):
    f, _, z, jacobians = dense
    expected = jnp.max(jnp.abs(jnp.linalg.eigvals(jacobians)), axis=1)
    estimate = deq_jax.spectral_radius(f, z, jax.random.key(1), 2000)
    # A complex pair swings with a period of a few steps; over 1000 of them the mean is within about 1/1000.
    np.testing.assert_allclose(estimate, expected, rtol=5e-3)


def test_the_spectral_radius_of_a_symmetric_map_is_exact():
    a = linear_map(jax.random.key(0), 6, 1.0)
    symmetric = a + a.T
    expected = jnp.max(jnp.abs(jnp.linalg.eigvalsh(symmetric)))
    estimate = deq_jax.spectral_radius(lambda z: z @ symmetric, jnp.ones((2, 6)), jax.random.key(1), 400)
    np.testing.assert_allclose(estimate, expected, rtol=1e-3)


def test_the_spectral_radius_of_a_constant_is_zero():
    radius = deq_jax.spectral_radius(lambda z: jnp.ones_like(z), jnp.ones((2, 3)), jax.random.key(0))
    np.testing.assert_array_equal(radius, 0)


def test_the_penalty_is_the_squared_frobenius_norm(dense):
    f, _, z, jacobians = dense
    expected = jnp.sum(jacobians**2, axis=(1, 2))
    estimate = deq_jax.jacobian_penalty(f, z, jax.random.key(1), 20_000)
    # One draw is off by the order of the norm itself, 20,000 by 1/√20,000 = 0.7% of that.
    np.testing.assert_allclose(estimate, expected, rtol=0.03)


def test_the_penalty_s_gradient_is_that_of_the_dense_norm(dense):
    f, w, z, _ = dense

    def exact(w):
        x = jnp.zeros_like(z)
        jacobians = jax.vmap(jax.jacobian(lambda z, x: jnp.tanh(z @ w) + x))(z, x)
        return jnp.sum(jacobians**2)

    def estimated(w):
        return jnp.sum(deq_jax.jacobian_penalty(lambda z: f(z, w), z, jax.random.key(1), 20_000))

    expected = jax.grad(exact)(w)
    error = jnp.linalg.norm(jax.grad(estimated)(w) - expected) / jnp.linalg.norm(expected)
    assert error < 0.05  # 20,000 draws, as above


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_the_spectral_radius_of_an_extreme_map_is_right(factor):
    radius = deq_jax.spectral_radius(lambda z: factor * z, jnp.ones((2, 3)), jax.random.key(0))
    np.testing.assert_allclose(radius, factor, rtol=1e-3)


def test_states_may_be_pytrees():
    z = {"a": jnp.ones((2, 3)), "b": jnp.ones((2, 2))}

    def f(z):
        return {"a": 0.5 * z["a"], "b": 0.25 * z["b"]}

    np.testing.assert_allclose(deq_jax.spectral_radius(f, z, jax.random.key(0), 100), 0.5, rtol=1e-4)
    np.testing.assert_allclose(deq_jax.jacobian_penalty(f, z, jax.random.key(0)), 3 / 4 + 2 / 16, rtol=1e-6)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        deq_jax.spectral_radius(lambda z: z, jnp.ones((1, 1)), jax.random.key(0), 1)
    with pytest.raises(ValueError, match="samples must be a whole number, at least 1"):
        deq_jax.jacobian_penalty(lambda z: z, jnp.ones((1, 1)), jax.random.key(0), 0)
    with pytest.raises(TypeError, match="must return what it is given"):
        deq_jax.jacobian_penalty(lambda z: z[:, :1], jnp.ones((1, 2)), jax.random.key(0))
