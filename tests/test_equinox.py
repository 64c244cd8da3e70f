"""Equinox needs no code of ours: a module is a pytree, so it is one of ``args``, or closed over."""

import functools

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax

TIGHT = functools.partial(deq_jax.anderson, tol=1e-13, max_iter=200)


class Cell(equinox.Module):
    W: equinox.nn.Linear
    U: equinox.nn.Linear

    def __init__(self, key):
        w_key, u_key = jax.random.split(key)
        linear = equinox.nn.Linear(3, 3, use_bias=False, dtype=jnp.float64, key=w_key)
        self.W = equinox.tree_at(lambda linear: linear.weight, linear, 0.3 * linear.weight)
        self.U = equinox.nn.Linear(3, 3, dtype=jnp.float64, key=u_key)

    def __call__(self, z, x):
        return jnp.tanh(jax.vmap(self.W)(z) + jax.vmap(self.U)(x))


@pytest.fixture
def problem(x64):
    return Cell(jax.random.key(0)), jax.random.normal(jax.random.key(1), (4, 3), jnp.float64)


def unrolled_gradient(cell, x):
    def loss(cell):
        return jnp.sum(deq_jax.unrolled(lambda z: cell(z, x), jnp.zeros_like(x), steps=300) ** 2)

    return equinox.filter_grad(loss)(cell)


def assert_close(ours, expected):
    assert len(jax.tree.leaves(ours)) == 3
    # Both solves stop at 1e-13.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours, expected)


def test_a_module_may_be_closed_over(problem):
    cell, x = problem

    @equinox.filter_jit
    @equinox.filter_grad
    def gradient(cell):
        sol = deq_jax.fixed_point(lambda z: cell(z, x), jnp.zeros_like(x), solver=TIGHT)
        return jnp.sum(sol.value**2)

    assert_close(gradient(cell), unrolled_gradient(cell, x))


def test_its_arrays_may_be_an_argument(problem):
    cell, x = problem
    arrays, static = equinox.partition(cell, equinox.is_array)

    def loss(arrays):
        def f(z, x, arrays):
            return equinox.combine(arrays, static)(z, x)

        return jnp.sum(deq_jax.fixed_point(f, jnp.zeros_like(x), x, arrays, solver=TIGHT).value ** 2)

    assert_close(jax.grad(loss)(arrays), unrolled_gradient(cell, x))
