"""Fixed-point problems that several tests share."""

import jax
import jax.numpy as jnp


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
