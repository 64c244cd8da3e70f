import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deq_jax import Status, forward_iteration
from tests.problems import tanh_network


def test_finds_the_equilibrium_of_a_linear_map(x64):
    key = jax.random.key(0)
    a = jax.random.orthogonal(key, 6) * 0.8
    b = jax.random.normal(key, (3, 6))
    sol = forward_iteration(lambda z: z @ a + b, jnp.zeros_like(b), tol=1e-12, max_iter=300)
    # A relative residual of 1e-12 at rate 0.8 leaves an error of at most 5e-12.
    np.testing.assert_allclose(sol.value, b @ jnp.linalg.inv(jnp.eye(6) - a), rtol=1e-10)


def test_iterates_are_repeated_applications():
    f, w, x = tanh_network(jax.random.key(1), 2, 4)
    sol = forward_iteration(lambda z: f(z, x, w), jnp.zeros_like(x), tol=1e-9, max_iter=4, trace=True)
    z = jnp.zeros_like(x)
    for row in sol.trace:
        fz = f(z, x, w)
        np.testing.assert_allclose(row, jnp.linalg.norm(fz - z, axis=1) / jnp.linalg.norm(fz, axis=1), rtol=1e-5)
        z = fz


def test_damping_tames_an_oscillation():
    # z ← 1 − 2z swings ever wider; half a step lands on 1/3 at rate 1/2.
    def f(z):
        return 1 - 2 * z

    assert forward_iteration(f, jnp.zeros((1, 1)), max_iter=300).status[0] == Status.DIVERGED
    damped = forward_iteration(f, jnp.zeros((1, 1)), damping=0.5, tol=1e-6)
    np.testing.assert_allclose(damped.value, [[1 / 3]], rtol=1e-5)  # residual 1e-6


def test_damping_may_be_traced():
    def damped(damping):
        return forward_iteration(lambda z: 1 - 2 * z, jnp.zeros((1, 1)), damping=damping, tol=1e-6)

    traced, known = jax.jit(damped)(0.5), damped(0.5)
    np.testing.assert_array_equal(traced.iterations, known.iterations)
    np.testing.assert_allclose(traced.value, known.value, rtol=1e-6)


def test_damping_must_be_positive():
    with pytest.raises(ValueError, match="damping must be positive"):
        forward_iteration(lambda z: z, jnp.zeros((1, 1)), damping=0.0)
