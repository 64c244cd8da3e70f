import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deq_jax import Status, broyden, forward_iteration
from tests.problems import linear_map, tanh_network


def test_finds_the_equilibrium_of_a_linear_map(x64):
    a = linear_map(jax.random.key(0), 8, 0.9, dtype=jnp.float64)
    b = jax.random.normal(jax.random.key(1), (3, 8))
    sol = broyden(lambda z: z @ a + b, jnp.zeros_like(b), tol=1e-13, max_iter=300)
    np.testing.assert_allclose(sol.value, b @ jnp.linalg.inv(jnp.eye(8) - a), rtol=1e-10, atol=1e-11)


def test_steps_are_those_of_a_dense_inverse(x64):
    # Broyden's update of the dense inverse, by the textbook, over more steps than are kept without a restart.
    f, w, x = tanh_network(jax.random.key(2), 1, 6, dtype=jnp.float64)
    z = jnp.zeros(6)
    inverse, residuals, previous = -jnp.eye(6), [], None
    for _ in range(6):
        fz = f(z, x, w)[0]
        g = fz - z
        residuals.append(jnp.linalg.norm(g) / jnp.linalg.norm(fz))
        if previous is not None:
            dz, dg = z - previous[0], g - previous[1]
            inverse += jnp.outer(dz - inverse @ dg, dz @ inverse) / (dz @ inverse @ dg)
        previous = z, g
        z = z - inverse @ g
    sol = broyden(lambda z: f(z, x, w), jnp.zeros_like(x), m=10, tol=1e-15, max_iter=6, trace=True)
    np.testing.assert_allclose(sol.trace[:, 0], residuals, rtol=1e-6)


@pytest.mark.parametrize("m", [1, 2, 5, 30])
def test_any_memory_works_past_its_restarts(m):
    f, w, x = tanh_network(jax.random.key(3), 4, 10)
    sol = broyden(lambda z: f(z, x, w), jnp.zeros_like(x), m=m, tol=1e-6, max_iter=100)
    assert (sol.status == Status.CONVERGED).all()
    assert sol.iterations.max() > m or m == 30
    reference = forward_iteration(lambda z: f(z, x, w), jnp.zeros_like(x), tol=1e-6, max_iter=500)
    np.testing.assert_allclose(sol.value, reference.value, atol=1e-4)  # both within 1e-6/(1 − 0.9) of it


def test_converges_where_forward_iteration_does_not():
    rotation = 1.5 * jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    sol = broyden(lambda z: z @ rotation + 1, jnp.zeros((1, 2)), tol=1e-5)
    assert (sol.status == Status.CONVERGED).all()


def test_a_step_that_teaches_nothing_does_no_harm():
    sol = broyden(lambda z: jnp.sign(z) + 1, jnp.full((2, 3), 0.5), tol=1e-7, max_iter=20)
    np.testing.assert_array_equal(sol.value, 2.0)


def test_memory_must_be_positive():
    with pytest.raises(ValueError, match="m must be"):
        broyden(lambda z: z, jnp.zeros((1, 1)), m=0)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10, 1e15])
def test_the_scale_of_a_state_does_not_matter(scale):
    turn = 1.5 * jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    sol = broyden(lambda z: z @ turn + scale, jnp.zeros((1, 2)), tol=1e-4)
    assert sol.status[0] == Status.CONVERGED
    assert sol.iterations[0] <= 5
