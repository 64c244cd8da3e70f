"""What may be iterated on, and by what function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax


@pytest.mark.parametrize("solve", [deq_jax.fixed_point, deq_jax.fixed_point_jvp])
def test_the_same_function_is_read_anew_in_every_call(solve):
    """JAX remembers programs by the function; what that closes over may have changed."""

    class Cell:
        def __call__(self, z):
            return 0.5 * z + self.shift

    cell, z0 = Cell(), jnp.zeros((1, 1))

    def loss(shift):
        cell.shift = shift
        return solve(cell, z0, solver=functools.partial(deq_jax.anderson, tol=1e-6)).value.sum()

    for shift in (1.0, 2.0):
        np.testing.assert_allclose(loss(shift), 2 * shift, rtol=1e-5)
        np.testing.assert_allclose(jax.value_and_grad(loss)(shift), (2 * shift, 2), rtol=1e-5)


@pytest.mark.parametrize("solve", [deq_jax.fixed_point, deq_jax.fixed_point_jvp, deq_jax.anderson])
def test_a_weakly_typed_start_counts_as_an_ordinary_one(solve):
    weak = jnp.full((2, 3), 0.0)
    assert weak.weak_type
    assert solve(lambda z: z * jnp.bfloat16(0.1), weak).value.dtype == jnp.float32


@pytest.mark.parametrize("adjoint", [None, deq_jax.direct(), deq_jax.phantom(2), deq_jax.implicit(deq_jax.broyden)])
def test_no_type_is_promoted_in_silence(adjoint):
    def loss(w):
        return deq_jax.fixed_point(lambda z: z * w + 1, jnp.ones((2, 3)), adjoint=adjoint).value.sum()

    with jax.numpy_dtype_promotion("strict"):
        assert jnp.isfinite(jax.grad(loss)(jnp.float32(0.1)))
