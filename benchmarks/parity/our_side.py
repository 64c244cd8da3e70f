"""The same training by deq_jax."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import deq_jax
from benchmarks.parity.settings import FINAL_RATE, TIGHT_ITERATIONS, TIGHT_TOL
from benchmarks.training.contestants import ours
from benchmarks.training.contestants.jax_model import build_model, with_arrays
from benchmarks.training.exchange import INITIAL, Problem, read
from deq_jax import nn
from deq_jax.tasks.images.data import Examples
from deq_jax.tasks.images.task import classification_loss
from deq_jax.training.steps.step import create_state, make_train_step


def tight_layer(cell: nnx.Module, problem: Problem) -> nn.DEQ:
    """The equilibrium layer, solved far beyond the tolerance of training."""
    return nn.DEQ(
        cell, solver=functools.partial(deq_jax.anderson, m=problem.m, tol=TIGHT_TOL, max_iter=TIGHT_ITERATIONS)
    )


def first_outputs(folder: Path) -> tuple[np.ndarray, float]:
    """Logits of the first batch at the first weights, in training mode, and the largest residual that they rest on."""
    problem, weights, images, _ = read(folder)
    graph, *arrays = nnx.split(build_model(problem, tight_layer), nnx.Param, nnx.BatchStat)
    params, stats = nnx.as_pure(arrays)

    @jax.jit
    def outputs(params: dict, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, solution = nnx.merge(graph, params, stats)(images.astype(jnp.float32) / 255)
        return logits, solution.residual.max()

    logits, residual = outputs(with_arrays(params, weights[INITIAL]), jnp.asarray(images[0]))
    return np.asarray(logits), float(residual)


def losses(folder: Path) -> np.ndarray:
    """The loss of every step of the same training, Adam and its cosine included."""
    problem, weights, images, labels = read(folder)
    rate = optax.cosine_decay_schedule(problem.learning_rate, len(images), alpha=FINAL_RATE / problem.learning_rate)
    model, optimizer = build_model(problem, ours.layer), optax.adam(rate)
    state = create_state(model, optimizer)
    state = state._replace(params=with_arrays(state.params, weights[INITIAL]))
    step = jax.jit(make_train_step(model, classification_loss, optimizer), donate_argnums=0)
    found = []
    for batch, classes in zip(images, labels, strict=True):
        state, metrics = step(state, Examples(batch, classes))
        found.append(float(metrics.loss))
    return np.array(found)
