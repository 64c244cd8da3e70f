"""How contractive the cell is at the equilibria of some samples."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, PyTree

import deq_jax
from deq_jax.training.steps.step import as_graph
from deq_jax.training.task import Examples, Outcome

_ITERATIONS = 20
"""Of which the estimate is the mean over the last half."""

RadiusStep = Callable[[PyTree, PyTree, Examples], Float[Array, " batch"] | None]


def make_radius_step(model: nnx.Module, evaluate: Callable[[Any, Examples], Outcome]) -> RadiusStep:
    """The function (params, batch_stats, examples) -> spectral radius of ∂f/∂z at each sample's equilibrium.

    None where there is no equilibrium.
    """
    graph = as_graph(model, training=False)

    def radius_step(params: PyTree, batch_stats: PyTree, examples: Examples) -> Float[Array, " batch"] | None:
        outcome = evaluate(nnx.merge(graph, params, batch_stats), examples)
        if outcome.f is None:
            return None
        return deq_jax.spectral_radius(outcome.f, outcome.solution.value, jax.random.key(0), _ITERATIONS)

    return radius_step
