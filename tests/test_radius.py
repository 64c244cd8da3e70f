import jax.numpy as jnp
import numpy as np
from deq_jax.training.steps.radius import make_radius_step
from flax import nnx

import deq_jax
from deq_jax.training.disk import metrics
from deq_jax.training.task import Outcome


class Scaled(nnx.Module):
    """``f(z) = a z + x``, whose spectral radius is ``a``."""

    def __init__(self):
        self.a = nnx.Param(jnp.asarray(0.5))


def evaluate(model, x):
    a = model.a[...]
    states = jnp.where(jnp.isfinite(x), x / (1 - a), x)
    solution = deq_jax.Solution(states, *[jnp.zeros(len(x))] * 2, jnp.zeros(len(x), jnp.int8))
    return Outcome(jnp.zeros(len(x)), solution, lambda z: a * z + x)


def test_where_a_state_is_not_finite_the_radius_is_unknown_and_not_zero():
    step = make_radius_step(Scaled(), evaluate)
    _, params, rest = nnx.split(Scaled(), nnx.Param, ...)
    radii = step(nnx.as_pure(params), nnx.as_pure(rest), jnp.asarray([[1.0, 2.0], [jnp.nan, 1.0], [jnp.inf, 0.0]]))
    np.testing.assert_allclose(radii, [0.5, jnp.inf, jnp.inf], rtol=1e-5)
    assert metrics.line("eval", 1, 1, {"spectral_radius": float(radii[1])}, seconds=1.0)["spectral_radius"] is None
