import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

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


def test_the_contraction_of_a_linear_map_is_that_of_its_residual(x64):
    a = linear_map(jax.random.key(0), 6, 0.9).astype(jnp.float64)
    z = jax.random.normal(jax.random.key(1), (3, 6), jnp.float64)
    residual = z @ a + 1 - z

    def exact(a):
        return jnp.sum((residual @ a) ** 2, axis=1) / jnp.sum(residual**2, axis=1)

    def measured(a):
        return deq_jax.contraction_penalty(lambda z: z @ a + 1, z)

    np.testing.assert_allclose(measured(a), exact(a), rtol=1e-12)
    gradients = [jax.grad(lambda a, of=of: jnp.sum(of(a)))(a) for of in (measured, exact)]
    np.testing.assert_allclose(*gradients, rtol=1e-10, atol=1e-12)


def test_the_contraction_near_an_equilibrium_is_that_of_the_jacobian(dense):
    f, _, z, jacobians = dense
    near = z + 1e-6 * jax.random.normal(jax.random.key(2), z.shape, z.dtype)
    residual = f(near) - near
    shortened = jnp.einsum("bij,bj->bi", jacobians, residual)
    expected = jnp.sum(shortened**2, axis=1) / jnp.sum(residual**2, axis=1)
    np.testing.assert_allclose(deq_jax.contraction_penalty(f, near), expected, rtol=1e-4)


@pytest.mark.parametrize("solver", [deq_jax.forward_iteration, deq_jax.anderson])
def test_a_solve_cut_short_leaves_the_directions_that_contract_least(solver):
    """Of ten directions one hardly contracts: the mean over all says little of it, the residual all."""
    factors = jnp.linspace(0.01, 0.1, 10).at[3].set(0.9)
    sol = solver(lambda z: factors * z + 1, jnp.zeros((1, 10)), max_iter=3)
    mean = deq_jax.jacobian_penalty(lambda z: factors * z + 1, sol.value, jax.random.key(0)) / 10
    assert mean[0] < 0.1
    penalty = deq_jax.contraction_penalty(lambda z: factors * z + 1, sol.value)
    np.testing.assert_allclose(penalty, 0.9**2, rtol=0.05)


def test_the_contraction_at_an_equilibrium_is_zero_and_so_is_its_gradient():
    def total(a):
        return jnp.sum(deq_jax.contraction_penalty(lambda z: a * z, jnp.zeros((2, 3))))

    assert jax.value_and_grad(total)(0.5) == (0, 0)


def test_the_contraction_fades_where_the_residual_is_rounding_and_no_sooner():
    """Noise of one unit in the last place is not taken for a stiff cell, and a hundred of them are no noise."""
    noise = jax.random.rademacher(jax.random.key(0), (2, 50), jnp.float32) * 1e-7
    assert jnp.all(deq_jax.contraction_penalty(lambda z: 1 + noise * jnp.sign(z - 1), 1 + noise) < 0.1)
    near = 2 + 4e-5 * jnp.ones((2, 50))
    np.testing.assert_allclose(deq_jax.contraction_penalty(lambda z: 2 - 0.5 * (z - 2), near), 0.25, rtol=0.02)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_contraction_is_measured_in_half_precision(dtype):
    z = jnp.zeros((2, 3), dtype)
    np.testing.assert_allclose(deq_jax.contraction_penalty(lambda z: -0.5 * z + 1, z), 0.25, rtol=0.02)
    # A small leaf of few digits does not hide what the wide one has left.
    mixed = {"wide": jnp.full((2, 3), 0.66), "small": jnp.full((2, 3), 1e-3, dtype)}
    measured = deq_jax.contraction_penalty(lambda z: {"wide": 1 - 0.5 * z["wide"], "small": z["small"]}, mixed)
    np.testing.assert_allclose(measured, 0.25, rtol=0.02)


def test_a_cell_that_draws_is_refused():
    dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    with pytest.raises(Exception, match="trace"):
        deq_jax.contraction_penalty(lambda z: dropout(0.1 * jnp.tanh(z) + 1), jnp.ones((2, 50)))


def test_the_contraction_holds_the_iterates_fixed():
    gradient = jax.grad(lambda z: jnp.sum(deq_jax.contraction_penalty(jnp.tanh, z)))(jnp.ones((2, 3)))
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_contraction_is_the_same_at_any_scale(scale):
    z = scale * jnp.ones((2, 3))
    np.testing.assert_allclose(deq_jax.contraction_penalty(lambda z: 0.5 * z, z), 0.25, rtol=1e-5)


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
    expected = (3 * (1 / 2 * 1 / 2) ** 2 + 2 * (1 / 4 * 3 / 4) ** 2) / (3 * (1 / 2) ** 2 + 2 * (3 / 4) ** 2)
    np.testing.assert_allclose(deq_jax.contraction_penalty(f, z), expected, rtol=1e-6)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        deq_jax.spectral_radius(lambda z: z, jnp.ones((1, 1)), jax.random.key(0), 1)
    with pytest.raises(ValueError, match="samples must be a whole number, at least 1"):
        deq_jax.jacobian_penalty(lambda z: z, jnp.ones((1, 1)), jax.random.key(0), 0)
    with pytest.raises(TypeError, match="must return what it is given"):
        deq_jax.jacobian_penalty(lambda z: z[:, :1], jnp.ones((1, 2)), jax.random.key(0))
    with pytest.raises(TypeError, match="must return what it is given"):
        deq_jax.contraction_penalty(lambda z: z[:, :1], jnp.ones((1, 2)))
    with pytest.raises(TypeError, match="floating-point"):
        deq_jax.contraction_penalty(lambda z: z, jnp.ones((1, 2), jnp.int32))
    with pytest.raises(ValueError, match="batch"):
        deq_jax.contraction_penalty(lambda z: z, {"a": jnp.ones((1, 2)), "b": jnp.ones((2, 2))})
