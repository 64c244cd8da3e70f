"""How contractive the cell is at the equilibria of some images."""

from collections.abc import Callable

import jax
from flax import nnx
from jaxtyping import Array, Float, PyTree

import deq_jax
from deq_jax.nn.deq import prepared
from deq_jax.training.steps.step import Classifier, Images, as_graph, scaled

_ITERATIONS = 20
"""Of which the estimate is the mean over the last half."""

RadiusStep = Callable[[PyTree, PyTree, Images], Float[Array, " batch"]]


def make_radius_step(model: Classifier) -> RadiusStep:
    """The function (params, batch_stats, images) -> spectral radius of ∂f/∂z at each image's equilibrium."""
    graph = as_graph(model, training=False)

    def radius_step(params: PyTree, batch_stats: PyTree, images: Images) -> Float[Array, " batch"]:
        model = nnx.merge(graph, params, batch_stats)
        x = model.inject(scaled(images))
        cell = prepared(model.cell)
        return deq_jax.spectral_radius(lambda z: cell(z, x), model.solve(x).value, jax.random.key(0), _ITERATIONS)

    return radius_step
