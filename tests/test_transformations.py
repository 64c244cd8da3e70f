"""The primitive inside JAX's other transformations, and what is built of its second derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax
from tests.problems import tanh_network

TIGHT = functools.partial(deq_jax.anderson, tol=1e-13, max_iter=300)


@pytest.fixture
def network(x64):
    return tanh_network(jax.random.key(0), 4, 5, dtype=jnp.float64)


def equilibrium(f, w, x):
    return deq_jax.fixed_point(f, jnp.zeros_like(x), x, w, solver=TIGHT).value


def test_a_scan_over_several_solves(network):
    f, w, x = network

    def scanned(w):
        return jnp.sum(jax.lax.scan(lambda x, _: (equilibrium(f, w, x), None), x, length=3)[0] ** 2)

    def written_out(w):
        return jnp.sum(equilibrium(f, w, equilibrium(f, w, equilibrium(f, w, x))) ** 2)

    for transform in (lambda g: g, jax.checkpoint):
        np.testing.assert_allclose(
            jax.jit(jax.grad(transform(scanned)))(w), jax.jit(jax.grad(written_out))(w), rtol=1e-9
        )


def test_a_hessian_vector_product_is_that_of_finite_differences(network):
    f, w, x = network
    gradient = jax.jit(jax.grad(lambda w: jnp.sum(jnp.sin(equilibrium(f, w, x)))))
    v = jax.random.normal(jax.random.key(1), w.shape)
    _, pull_back = jax.vjp(gradient, w)
    step = 1e-5
    numeric = (gradient(w + step * v) - gradient(w - step * v)) / (2 * step)
    # The Hessian is symmetric, so Jᵀv of the gradient is its product with v; central differences err by step².
    np.testing.assert_allclose(jax.jit(pull_back)(v)[0], numeric, rtol=1e-6, atol=1e-7)


def test_a_gradient_penalty_can_be_minimised(network):
    f, w, x = network

    @jax.jit
    @jax.value_and_grad
    def penalty(w):
        return jnp.sum(jax.grad(lambda x: jnp.sum(equilibrium(f, w, x) ** 2))(x) ** 2)

    before, direction = penalty(w)
    after, _ = penalty(w - 1e-3 * direction / jnp.linalg.norm(direction))
    np.testing.assert_allclose(before - after, 1e-3 * jnp.linalg.norm(direction), rtol=0.1)  # to first order
