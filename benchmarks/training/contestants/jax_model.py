"""The chapter's model in JAX, with a layer of the contestant's own around the cell; everything else is shared."""

import functools
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, PyTree

from benchmarks.training.exchange import INITIAL, Arrays, Problem, common_name, read
from benchmarks.training.ticks import count_calls, count_products, counts
from deq_jax.nn import DEQClassifier
from deq_jax.nn.layers.conv import SMALL
from deq_jax.solution import Solution, Status
from deq_jax.tasks.images.data import Examples
from deq_jax.tasks.images.task import classification_loss
from deq_jax.training.steps.step import create_state, make_train_step

MakeLayer = Callable[[nnx.Module, Problem], nnx.Module]
Solve = Callable[[Callable[..., Array], PyTree, PyTree, Problem], Array]


class StockCell(nnx.Module):
    """The chapter's cell from Flax's own layers, as its user would write it; its parameters have deq_jax's names."""

    def __init__(self, problem: Problem, *, rngs: nnx.Rngs):
        outer, inner, side = problem.channels, problem.inner_channels, problem.kernel_size
        groups = problem.num_groups
        self.conv1 = nnx.Conv(outer, inner, (side, side), use_bias=False, kernel_init=SMALL, rngs=rngs)
        self.conv2 = nnx.Conv(inner, outer, (side, side), use_bias=False, kernel_init=SMALL, rngs=rngs)
        self.norm1 = nnx.GroupNorm(inner, num_groups=groups, epsilon=1e-5, rngs=rngs)
        self.norm2 = nnx.GroupNorm(outer, num_groups=groups, epsilon=1e-5, rngs=rngs)
        self.norm3 = nnx.GroupNorm(outer, num_groups=groups, epsilon=1e-5, rngs=rngs)

    def __call__(self, z: Array, x: Array) -> Array:
        """Evaluate ``f(z, x)``."""
        y = self.norm1(jax.nn.relu(self.conv1(z)))
        return self.norm3(jax.nn.relu(z + self.norm2(x + self.conv2(y))))


class Solved(nnx.Module):
    """A layer in the form of ``deq_jax.nn.DEQ``, whose equilibrium comes from ``solve(f, x, state, problem)``."""

    def __init__(self, cell: nnx.Module, problem: Problem, solve: Solve):
        self.cell = cell
        self.problem = problem
        self.solve = solve

    def __call__(self, x: PyTree, *, report: Any = None) -> Solution:
        """Solve for the batch ``x``; the peers say nothing about their solves, and so the solution does not."""
        del report
        graph, state = nnx.split(self.cell)

        def f(z: Array, x: PyTree, state: PyTree) -> Array:
            return nnx.merge(graph, state)(z, x)

        z = self.solve(f, x, nnx.as_pure(state), self.problem)
        nothing = jnp.zeros(len(z))
        return Solution(z, nothing, nothing.astype(jnp.int32), jnp.full(len(z), Status.CONVERGED, jnp.int8))


class _WatchedCell(nnx.Module):
    """A cell that counts, and adds the second half of its injection to its output."""

    def __init__(self, cell: nnx.Module):
        self.cell = cell

    def initial_state(self, x: tuple[Array, Array]) -> Array:
        return jnp.zeros_like(x[0])

    def __call__(self, z: Array, x: tuple[Array, Array]) -> Array:
        return count_products(self.cell(count_calls(z), x[0]) + x[1])


class _WatchedLayer(nnx.Module):
    """A layer with a parameter, zero, that is added to the cell's output; its gradient is the adjoint ``g``."""

    def __init__(self, layer: nnx.Module, problem: Problem):
        height, width, _ = problem.image
        self.deq = layer
        self.adjoint = nnx.Param(jnp.zeros((problem.batch, height, width, problem.channels)))

    def __call__(self, x: Array, *, report: Any = None) -> Solution:
        return self.deq((x, self.adjoint[...]), report=report)


def zero_state(x: PyTree) -> Array:
    """Where every contestant starts: zeros, in the form of the injection."""
    return jnp.zeros_like(jax.tree.leaves(x)[0])


def build_model(
    problem: Problem, make_layer: MakeLayer, *, stock: bool = False, watched: bool = False
) -> DEQClassifier:
    """The chapter's classifier with ``make_layer(cell, problem)`` inside, of freshly drawn weights."""
    rngs = nnx.Rngs(problem.seed)
    sizes = {"channels": problem.channels, "inner_channels": problem.inner_channels, "num_groups": problem.num_groups}
    model = DEQClassifier(
        problem.image, problem.num_classes, **sizes, kernel_size=problem.kernel_size, pool=problem.pool, rngs=rngs
    )
    cell = StockCell(problem, rngs=rngs) if stock else model.deq.cell
    model.deq = make_layer(_WatchedCell(cell) if watched else cell, problem)
    if watched:
        model.deq = _WatchedLayer(model.deq, problem)
    return model


def named_arrays(tree: PyTree) -> Arrays:
    """Parameters or gradients, as plain arrays under their common names."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {common_name(_words(path)): np.asarray(leaf) for path, leaf in paths}


def with_arrays(tree: PyTree, arrays: Arrays) -> PyTree:
    """``tree`` with its leaves replaced by the arrays of the same common name; leaves without one stay."""

    def replace(path: tuple, leaf: Array) -> Array:
        array = arrays.get(common_name(_words(path)))
        return leaf if array is None else jnp.asarray(array)

    return jax.tree_util.tree_map_with_path(replace, tree)


def _words(path: tuple) -> list[str]:
    return [str(getattr(key, "key", getattr(key, "name", key))) for key in path]


class JaxContestant:
    """A contestant in JAX: deq_jax's own training step around a layer of the contestant's choice."""

    def __init__(self, folder: Path, make_layer: MakeLayer, *packages: str, stock: bool = True):
        self.problem, self.weights, images, self.labels = read(folder)
        self.images = jax.device_put(images)
        self.make_layer, self.stock = make_layer, stock
        self.versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", *packages)}
        optimizer = optax.adam(self.problem.learning_rate)
        model = build_model(self.problem, make_layer, stock=stock)
        state = create_state(model, optimizer)
        # Copies, because a step gives the arrays of its state away.
        self.begun = lambda weights: jax.tree.map(jnp.copy, state._replace(params=with_arrays(state.params, weights)))
        self.train = jax.jit(make_train_step(model, classification_loss, optimizer), donate_argnums=0)
        self.reset()

    def reset(self, weights: str = INITIAL) -> None:
        """To other weights; see :class:`benchmarks.training.worker.Contestant`."""
        self.state = self.begun(self.weights[weights])

    def step(self, k: int) -> None:
        """One training step; see :class:`benchmarks.training.worker.Contestant`."""
        self.state, metrics = self.train(self.state, Examples(self.images[k], self.labels[k]))
        jax.block_until_ready((self.state, metrics))

    def inspect(self, k: int) -> tuple[dict[str, int], Arrays]:
        """Counts and gradients; see :class:`benchmarks.training.worker.Contestant`."""
        program, params = self._watched
        params = with_arrays(params, named_arrays(self.state.params))
        before = dict(counts)
        (_, z), grads = jax.block_until_ready(program(params, self.images[k], self.labels[k]))
        ran = {name: count - before[name] for name, count in counts.items()}
        arrays = named_arrays(grads)
        return {"forward": ran["call"], "backward": ran["product"]}, {
            "z": np.asarray(z),
            "g": arrays.pop("adjoint"),
            **arrays,
        }

    @functools.cached_property
    def _watched(self) -> tuple[Callable[..., Any], PyTree]:
        """The step's loss and gradient with a watched cell, compiled; and parameters of its form."""
        model = build_model(self.problem, self.make_layer, stock=self.stock, watched=True)
        graph, *arrays = nnx.split(model, nnx.Param, nnx.BatchStat)
        params, stats = nnx.as_pure(arrays)

        def loss(params: PyTree, images: Array, labels: Array) -> tuple[Array, Array]:
            logits, solution = nnx.merge(graph, params, stats)(images.astype(jnp.float32) / 255)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), solution.value

        return jax.jit(jax.value_and_grad(loss, has_aux=True)), params
