"""Fixed-point problems that several tests share."""

import functools

import jax
import jax.numpy as jnp

import deq_jax


def linear_map(key, n, radius, *, dtype=jnp.float32):
    """A random matrix ``[n, n]`` of the given spectral radius."""
    matrix = jax.random.normal(key, (n, n), dtype)
    return matrix * (radius / jnp.max(jnp.abs(jnp.linalg.eigvals(matrix)))).astype(dtype)


def tanh_network(key, batch, n, *, radius=0.9, dtype=jnp.float32):
    """``f(z, x) = tanh(zW) + x`` as ``(f, W, x)``."""
    w_key, x_key = jax.random.split(key)
    w = linear_map(w_key, n, radius, dtype=dtype)
    return lambda z, x, w: jnp.tanh(z @ w) + x, w, jax.random.normal(x_key, (batch, n), dtype)


def non_normal_map(n, radius):
    """Upper triangular ``[n, n]``, eigenvalues in ±radius, ones above: its powers grow long before they decay."""
    return jnp.diag(jnp.linspace(-radius, radius, n)) + jnp.diag(jnp.ones(n - 1), 1)


def network_loss():
    """A network ``f``, its weight and injection, a target, and a loss of these and a bias that is closed over."""
    f, w, x = tanh_network(jax.random.key(0), 3, 8, dtype=jnp.float64)
    target = jax.random.normal(jax.random.key(1), x.shape, jnp.float64)

    def loss(w, x, bias, adjoint):
        solver = functools.partial(deq_jax.anderson, tol=1e-12, max_iter=300)
        sol = deq_jax.fixed_point(lambda z, x: f(z, x, w) + bias, jnp.zeros_like(x), x, solver=solver, adjoint=adjoint)
        return jnp.mean((sol.value - target) ** 2), sol.value

    return f, (w, x), target, loss
