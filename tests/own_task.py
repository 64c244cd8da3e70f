"""A task of one's own, as small as can be: numbers from pairs of numbers, compiled in a second or two."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from deq_jax import nn, training

# Little to compile; what it solves is found all the same.
QUICK = {
    "epochs": 2,
    "batch_size": 8,
    "solver": {"method": "forward-iteration", "max_iter": 10},
    "adjoint": {"kind": "phantom", "steps": 2},
    "evaluation": {"radius_samples": 0},
}


class Cell(nnx.Module):
    def __init__(self, width, rngs):
        self.linear = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, z, x):
        return jnp.tanh(self.linear(z) / 2 + x)


class Regressor(nnx.Module):
    """With what a model may hold: a constant, batch statistics, dropout."""

    def __init__(self, solver, adjoint, rngs, width=4):
        self.mean = jnp.full(2, 0.1)
        self.stem = nnx.Linear(2, width, rngs=rngs)
        self.deq = nn.DEQ(Cell(width, rngs), solver=solver, adjoint=adjoint)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x, report=None):
        solution = self.deq(self.stem(x - self.mean), report=report)
        return self.head(self.dropout(self.norm(solution.value)))[:, 0], solution


class Ordinary(nnx.Module):
    def __init__(self, solver, adjoint, rngs):
        del solver, adjoint
        self.head = nnx.Linear(2, 1, rngs=rngs)


class Two(nnx.Module):
    def __init__(self, solver, adjoint, rngs):
        self.stem = nnx.Linear(2, 4, rngs=rngs)
        self.one = nn.DEQ(Cell(4, rngs), solver=solver, adjoint=adjoint)
        self.other = nn.DEQ(Cell(4, rngs), solver=solver, adjoint=adjoint)


def loss(model, batch, report):
    x, y = batch
    predicted, solution = model(x, report)
    return training.Outcome((predicted - y) ** 2, solution, metrics={"error": abs(predicted - y)})


def ordinary_loss(model, batch, report):
    x, y = batch
    return training.Outcome((model.head(x)[:, 0] - y) ** 2)


def two_losses(model, batch, report):
    x, y = batch
    x = model.stem(x)
    one = model.one(x, report=report[0])
    other = model.other(one.value, report=report[1])
    cells = (lambda z: model.one.cell(z, x)), (lambda z: model.other.cell(z, one.value))
    return training.Outcome((other.value.sum(1) - y) ** 2, (one, other), cells)


def arrays(n=40, seed=0):
    x = np.random.default_rng(seed).uniform(-1, 1, (n, 2))
    return x, x[:, 0] * x[:, 1]


def own_task(**changes):
    x, y = arrays()
    task = training.Task(
        training.Data({"train": (x[:24], y[:24]), "test": (x[24:], y[24:])}), Regressor, loss, metrics={"error": ""}
    )
    return task._replace(**changes)
