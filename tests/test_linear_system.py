import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deq_jax.solvers.linear_system import WRITTEN_OUT, solve_positive


@pytest.mark.parametrize("n", [1, 2, 4, WRITTEN_OUT, WRITTEN_OUT + 1])
def test_solves_what_numpy_solves(x64, n):
    a = jax.random.normal(jax.random.key(n), (3, n, n + 2), jnp.float64)
    b = jax.random.normal(jax.random.key(n + 1), (3, n), jnp.float64)
    matrix = a @ a.mT + jnp.eye(n)
    solved = jax.vmap(solve_positive)(matrix, b)
    # Condition numbers of about 100, in double precision.
    np.testing.assert_allclose(solved, np.linalg.solve(matrix, b[..., None])[..., 0], rtol=1e-11)


def test_small_systems_call_no_library():
    text = jax.jit(jax.vmap(solve_positive)).lower(jnp.ones((2, 4, 4)), jnp.ones((2, 4))).as_text()
    assert "custom_call" not in text
