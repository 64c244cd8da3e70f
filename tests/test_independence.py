import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import deq_jax
from deq_jax import nn

A = jax.random.normal(jax.random.key(0), (4, 4))


@pytest.mark.parametrize(
    ("f", "z0"),
    [
        (lambda z: jnp.tanh(z @ A), jnp.zeros((3, 4))),
        (lambda z: jnp.tanh(z @ A), jnp.zeros((1, 4))),
        (lambda z: jax.nn.relu(z), jnp.zeros(5)),
        (lambda z: 0.5 * jnp.sqrt(z + 0.5) + 1, jnp.ones((8, 3))),  # not finite at a random state
        (lambda z: {"a": z["b"] @ A, "b": jnp.flip(z["a"], axis=1)}, {"a": jnp.zeros((2, 4)), "b": jnp.zeros((2, 4))}),
        (nn.GroupNorm(4, 2), jnp.zeros((3, 2, 2, 4))),
        (nn.Conv(4, 4, rngs=nnx.Rngs(0)), jnp.zeros((3, 5, 5, 4))),
    ],
)
def test_samples_that_are_apart_pass(f, z0):
    deq_jax.check_independence(f, z0)


@pytest.mark.parametrize(
    ("f", "z0", "others"),
    [
        (lambda z: jnp.tanh(A @ z), jnp.zeros(4), "1, 2, 3"),
        (lambda z: z - z.mean(axis=0), jnp.zeros((3, 2)), "1, 2"),
        (lambda z: jnp.roll(z, 1, axis=0), jnp.zeros((3, 2)), "2"),
        (lambda z: jnp.cumsum(z, axis=0), jnp.zeros((3, 2)), "0"),
        (lambda z: jnp.tanh(jnp.tril(A) @ z), jnp.zeros(4), "0"),
        (lambda z: {"a": z["a"], "b": z["b"] + z["a"][::-1]}, {"a": jnp.zeros((3, 2)), "b": jnp.zeros((3, 2))}, "2"),
    ],
)
def test_samples_that_mix_are_named(f, z0, others):
    with pytest.raises(ValueError, match=f"sample . of f.z. depends on samples? {others} of z"):
        deq_jax.check_independence(f, z0)


def test_what_f_takes_besides_is_handed_on():
    deq_jax.check_independence(lambda z, x, w: z @ w + x, jnp.zeros((2, 4)), jnp.ones((2, 4)), A)
    with pytest.raises(ValueError, match="mixes samples"):
        deq_jax.check_independence(lambda z, w: w @ z, jnp.zeros((4, 4)), A)


def test_a_function_that_is_finite_nowhere_is_no_verdict():
    with pytest.raises(ValueError, match="finite neither at a random state nor at z0"):
        deq_jax.check_independence(lambda z: jnp.log(z), jnp.zeros((2, 3)))
