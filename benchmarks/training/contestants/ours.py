"""deq_jax as it is."""

import functools
from pathlib import Path

from flax import nnx

import deq_jax
from benchmarks.training.contestants.jax_model import JaxContestant
from benchmarks.training.exchange import Problem
from benchmarks.training.worker import serve
from deq_jax import nn


def layer(cell: nnx.Module, problem: Problem) -> nn.DEQ:
    """The chapter's layer: Anderson forward, and the same for the adjoint equation."""
    solver = functools.partial(deq_jax.anderson, m=problem.m, tol=problem.tol, max_iter=problem.max_iter)
    return nn.DEQ(cell, solver=solver)


def build(folder: Path) -> JaxContestant:
    """The contestant "deq_jax"."""
    return JaxContestant(folder, layer, stock=False)


if __name__ == "__main__":
    serve(build)
