"""What every solver promises on every input, on 2,100 generated problems."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax
from deq_jax import Status
from deq_jax.states.norms import relative_residual
from deq_jax.states.trees import flatten_samples

# Compiled once each: shapes, dtypes and settings come from this list, values from hypothesis.
SHAPES = [(0, 3), (1, 0), (1, 1), (3, 4), (2, 2, 3)]
DTYPES = [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64]
SETTINGS = {
    deq_jax.forward_iteration: [{"damping": 1.0, "max_iter": 6}, {"damping": 0.5, "max_iter": 30}],
    deq_jax.anderson: [
        {"m": 1, "beta": 0.7, "max_iter": 5},
        {"m": 5, "lam": 0.0, "max_iter": 30},
        {"m": 9, "beta": 1.5, "max_iter": 4},
    ],
    deq_jax.broyden: [{"m": 1, "max_iter": 5}, {"m": 3, "max_iter": 30}, {"m": 40, "max_iter": 4}],
}


def network(z, x, w, scale):
    return scale * jnp.tanh((z / scale).reshape(z.shape[0], w.shape[0]) @ w).reshape(z.shape) + x


@functools.cache
def compiled(solver, settings):
    def run(x, w, scale, tol):
        f = functools.partial(network, x=x, w=w, scale=scale)
        sol = solver(f, jnp.zeros_like(x), tol=tol, trace=True, **dict(settings))
        again = relative_residual(flatten_samples(f(sol.value)), flatten_samples(sol.value))
        return sol, again

    return jax.jit(run)


@st.composite
def problems(draw):
    shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = int(np.prod(shape[1:]))
    # float16 holds up to 65,504 and down to 6e-5: other scales are no state of it.
    scale = 10.0 ** draw(st.integers(-1, 1) if dtype == jnp.float16 else st.integers(-8, 8))
    x = rng.normal(size=shape) * scale
    for bad in draw(st.lists(st.sampled_from([np.nan, np.inf, -np.inf]), max_size=2)):
        if x.size:
            x.flat[draw(st.integers(0, x.size - 1))] = bad
    w = rng.normal(size=(n, n)) * draw(st.sampled_from([0.0, 0.1, 1.0, 10.0])) / max(n, 1) ** 0.5
    return jnp.asarray(x, dtype), jnp.asarray(w, dtype), jnp.asarray(scale, dtype)


@pytest.mark.long
@pytest.mark.parametrize("solver", SETTINGS, ids=lambda solver: solver.__name__)
@hypothesis.settings(max_examples=700, deadline=None, derandomize=True, database=None)
@hypothesis.given(data=st.data())
def test_no_crash_no_nan_and_no_wrong_status(solver, data):
    with jax.enable_x64(True):
        x, w, scale = data.draw(problems())
        settings = data.draw(st.sampled_from(SETTINGS[solver]))
        tol = data.draw(st.sampled_from([1e-2, 1e-9]))
        sol, again = compiled(solver, tuple(settings.items()))(x, w, scale, tol)
    value, residual, iterations, status, trace = (np.asarray(leaf) for leaf in sol)
    spoilt = ~np.isfinite(np.asarray(x, np.float64)).all(axis=tuple(range(1, x.ndim)))

    assert value.dtype == x.dtype
    assert np.isfinite(value.astype(np.float64)).all()
    assert not np.isnan(residual).any()
    np.testing.assert_array_equal(iterations, np.isfinite(trace).sum(0) + (status == Status.DIVERGED))
    assert (iterations <= settings["max_iter"]).all()
    assert (iterations >= 1).all()
    np.testing.assert_array_equal(status == Status.CONVERGED, residual.astype(np.float64) <= np.float32(tol))
    np.testing.assert_array_equal(iterations[status == Status.MAX_ITER], settings["max_iter"])
    assert (status[spoilt] == Status.DIVERGED).all()
    # The residual is that of the value: recomputed, it differs by rounding only.
    honest = np.isfinite(residual)
    np.testing.assert_allclose(
        residual[honest], again[honest], rtol=1e-2, atol=4 * float(jnp.finfo(x.dtype).eps) * max(1, w.size)
    )
