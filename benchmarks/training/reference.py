"""The truth that contestants are held against, in float64: residuals of what they return, and the exact gradient."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, PyTree

import deq_jax
from benchmarks.training.contestants.jax_model import build_model, named_arrays, with_arrays
from benchmarks.training.exchange import Arrays, Problem
from deq_jax import nn

TOL, MAX_ITER = 1e-10, 400


class Truth(NamedTuple):
    """The exact gradient of the loss on one batch, and how exact it is."""

    gradient: Arrays
    residual: float
    """Relative residual of the worst sample, forward and adjoint."""
    evaluations: tuple[int, int]


class Accuracy(NamedTuple):
    """How good one contestant's forward and backward pass were, on the batch of the :class:`Truth`."""

    residual_mean: float
    residual_worst: float
    adjoint_mean: float
    adjoint_worst: float
    gradient_error: float
    """``‖gradient − exact‖₂ / ‖exact‖₂`` over all parameters."""
    cell_gradient_error: float
    """The same over the cell's parameters."""


def exact_gradient(problem: Problem, weights: Arrays, images: np.ndarray, labels: np.ndarray) -> Truth:
    """Solve both equations in float64 to 1e-10, on the whole batch: batch normalisation lets no sample stand alone."""
    with jax.enable_x64(True):
        graph, params, stats = _model(problem, weights)

        def loss(params: PyTree, report: PyTree) -> tuple[Array, deq_jax.Solution]:
            logits, solution = nnx.merge(graph, params, stats)(_scaled(images), report=report)
            return _cross_entropy(logits, labels), solution

        differentiate = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
        (grads, report), solution = differentiate(params, _double(deq_jax.adjoint_report(problem.batch)))
        worst = max(float(solution.residual.max()), float(report.residual.max()))
        evaluations = int(solution.iterations.max()), int(report.iterations.max())
        return Truth(named_arrays(grads), worst, evaluations)


def accuracy(
    problem: Problem, weights: Arrays, images: np.ndarray, labels: np.ndarray, truth: Truth, found: Arrays
) -> Accuracy:
    """Hold what a contestant returned, the arrays of `inspect`, against the truth at the same weights and batch."""
    with jax.enable_x64(True):
        forward, adjoint = _residuals(problem, weights, images, labels, found["z"], found["g"])
    cell = [name for name in truth.gradient if name.startswith("cell.")]
    return Accuracy(
        float(forward.mean()),
        float(forward.max()),
        float(adjoint.mean()),
        float(adjoint.max()),
        relative_error(found, truth.gradient),
        relative_error(found, {name: truth.gradient[name] for name in cell}),
    )


def relative_error(found: Arrays, exact: Arrays) -> float:
    """``‖found − exact‖₂ / ‖exact‖₂`` over the arrays of ``exact``."""
    apart = sum(float(np.sum((found[name].astype(np.float64) - array) ** 2)) for name, array in exact.items())
    size = sum(float(np.sum(array.astype(np.float64) ** 2)) for array in exact.values())
    return (apart / size) ** 0.5


def _residuals(
    problem: Problem, weights: Arrays, images: np.ndarray, labels: np.ndarray, z: np.ndarray, g: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``‖f(z) − z‖ / ‖f(z)‖`` and ``‖Jᵀg + y − g‖ / ‖Jᵀg + y‖`` of each sample, ``[batch]``."""
    graph, params, stats = _model(problem, weights)

    @jax.jit
    def measure(params: PyTree, z: Array, g: Array) -> tuple[Array, Array]:
        model = nnx.merge(graph, params, stats)
        x = model.stem_norm(model.stem(_scaled(images)))
        fz, transposed = jax.vjp(lambda z: model.deq.cell(z, x), z)

        def loss_of(z: Array) -> Array:
            head = nnx.merge(graph, params, stats)
            head.deq = _Given(z)
            return _cross_entropy(head(_scaled(images))[0], labels)

        y = jax.grad(loss_of)(z)
        mapped = transposed(g)[0] + y
        return _relative(fz, z), _relative(mapped, g)

    return tuple(map(np.asarray, measure(params, jnp.asarray(z, jnp.float64), jnp.asarray(g, jnp.float64))))


class _Given(nnx.Module):
    """A layer whose equilibrium is given."""

    def __init__(self, z: Array):
        self.z = nnx.Variable(z)

    def __call__(self, x: Array, *, report: PyTree = None) -> deq_jax.Solution:
        del x, report
        return deq_jax.Solution(self.z[...], *[jnp.zeros(len(self.z[...]))] * 3)


def _model(problem: Problem, weights: Arrays) -> tuple[nnx.GraphDef, PyTree, PyTree]:
    solver = functools.partial(deq_jax.anderson, tol=TOL, max_iter=MAX_ITER)
    model = build_model(problem, lambda cell, _: nn.DEQ(cell, solver=solver))
    graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graph, _double(with_arrays(nnx.as_pure(params), weights)), _double(nnx.as_pure(stats))


def _double(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def _scaled(images: np.ndarray) -> Array:
    return jnp.asarray(images, jnp.float64) / 255


def _cross_entropy(logits: Array, labels: np.ndarray) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)).mean()


def _relative(fz: Array, z: Array) -> Array:
    axes = tuple(range(1, z.ndim))
    return jnp.sqrt(jnp.sum((fz - z) ** 2, axes) / jnp.sum(fz**2, axes))
