import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax


@pytest.mark.long
def test_the_gradient_is_the_same_in_less_memory():
    """Of a cell whose inner arrays are far larger than its state."""
    key, inner = jax.random.key(0), 1024
    a, b = (0.3 * jax.random.normal(key, shape) / np.sqrt(shape[0]) for shape in ((8, inner), (inner, 8)))
    x = jax.random.normal(key, (64, 8))
    solver = functools.partial(deq_jax.anderson, tol=1e-6, m=2)

    def gradient(adjoint, mark):
        def loss(a, x):
            f = lambda z, x, a: jnp.sin(jnp.tanh(jnp.cos(z @ a))) @ b + x  # noqa: E731
            return jnp.sum(deq_jax.fixed_point(f, jnp.zeros_like(x), mark(x), a, solver=solver, adjoint=adjoint).value)

        program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(a, x).compile()
        return program(a, x), program.memory_analysis().temp_size_in_bytes

    implicit = deq_jax.implicit(solver)
    (kept, much), (anew, less) = (
        gradient(adjoint, lambda x: x) for adjoint in (implicit, deq_jax.recomputed(implicit))
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), anew, kept)
    assert much - less >= x.shape[0] * inner * 4
    in_groups, _ = gradient(deq_jax.or_nan(deq_jax.recomputed(implicit)), deq_jax.per_sample)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), in_groups, kept)


def test_what_is_said_of_an_adjoint_stays_true():
    with pytest.raises(ValueError, match="measures how well it did"):
        deq_jax.or_nan(deq_jax.recomputed(deq_jax.phantom(2)))
    with pytest.raises(TypeError, match="adjoint must be"):
        deq_jax.recomputed(lambda y: y)
