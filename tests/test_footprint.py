import functools

import jax
import jax.numpy as jnp
import pytest

import deq_jax


def measured(m, batch, mark):
    """Temporary bytes of a compiled gradient on this CPU, and those that are predicted."""
    x, w = jax.ShapeDtypeStruct((batch, 4096), jnp.float32), jax.ShapeDtypeStruct((4096,), jnp.float32)
    f = lambda z, x, w: jnp.tanh(z * w + x)  # noqa: E731
    solver = functools.partial(deq_jax.anderson, m=m)

    def total(x, w):
        return jnp.sum(deq_jax.fixed_point(f, jnp.zeros_like(x), mark(x), w, solver=solver).value ** 2)

    program = jax.jit(jax.grad(total, argnums=(0, 1))).lower(x, w).compile()
    return program.memory_analysis().temp_size_in_bytes, deq_jax.solve_bytes(f, x, x, w, m=m, platform="cpu")


@pytest.mark.parametrize(
    ("m", "batch", "mark"), [(3, 16, jnp.asarray), (8, 8, jnp.asarray), (5, 16, deq_jax.per_sample)]
)
def test_the_memory_of_a_gradient_is_known_before(m, batch, mark):
    taken, predicted = measured(m, batch, mark)
    assert 0.8 * predicted < taken < 1.2 * predicted


def test_a_larger_linearisation_and_memory_take_more():
    z0 = jax.ShapeDtypeStruct((4, 8), jnp.float32)
    few, many = (deq_jax.solve_bytes(jnp.tanh, z0, m=m, platform="gpu") for m in (2, 3))
    assert many - few == 2 * 4 * 8 * 4
    weights = jax.ShapeDtypeStruct((8, 100), jnp.float32)
    wide = deq_jax.solve_bytes(lambda z, w: jnp.tanh(z @ w) @ w.T, z0, weights, m=2, platform="gpu")
    assert wide - deq_jax.solve_bytes(lambda z: 0.5 * z, z0, m=2, platform="gpu") >= 4 * 100 * 4
    with pytest.raises(ValueError, match="platform must be gpu or cpu"):
        deq_jax.solve_bytes(jnp.tanh, z0, platform="abacus")
