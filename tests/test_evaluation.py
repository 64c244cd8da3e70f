import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax.training.disk import metrics
from deq_jax.training.steps.evaluation import eval_means, make_radius_step
from deq_jax.training.steps.step import EvalSums
from deq_jax.training.task import Outcome


def test_means_over_batches_weigh_every_sample_alike():
    sums = [
        EvalSums(3.0, 6.0, {"hits": 3.0}, forward_iterations=30.0, forward_residual=0.3, forward_converged=3.0),
        EvalSums(1.0, 6.0, {"hits": 0.0}, forward_iterations=2.0, forward_residual=0.1, forward_converged=0.0),
    ]
    means = eval_means(sums)
    assert means.pop("forward_residual") == pytest.approx(0.1)  # 0.4 / 4, rounded in binary
    assert means == {"samples": 4.0, "loss": 3.0, "hits": 0.75, "forward_iterations": 8.0, "forward_converged": 0.75}


def test_the_tasks_metrics_follow_the_loss():
    """In the order in which python -m deq_jax.evaluate prints them."""
    names = ["samples", "loss", "hits", "forward_iterations", "forward_residual", "forward_converged"]
    assert list(eval_means([EvalSums(1.0, 1.0, {"hits": 1.0}, 1.0, 1.0, 1.0)])) == names


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
