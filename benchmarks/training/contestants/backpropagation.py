"""Plain backpropagation through ``max_iter`` weight-tied layers: no solver, no implicit function theorem.

The cell is deq_jax's, the faster one. The layers stand one after the other in the program, as a stack is written by
hand: in the loop of ``deq_jax.unrolled``, XLA's gradient of a kernel takes thirty times as long on a CPU.
"""

from collections.abc import Callable
from pathlib import Path

from flax import nnx
from jaxtyping import Array, PyTree

from benchmarks.training.contestants.jax_model import JaxContestant, Solved, zero_state
from benchmarks.training.exchange import Problem
from benchmarks.training.worker import serve


def solve(f: Callable[..., Array], x: PyTree, state: PyTree, problem: Problem) -> Array:
    """Apply the cell ``max_iter`` times."""
    z = zero_state(x)
    for _ in range(problem.max_iter):
        z = f(z, x, state)
    return z


def layer(cell: nnx.Module, problem: Problem) -> Solved:
    """The stack of layers."""
    return Solved(cell, problem, solve)


def build(folder: Path) -> JaxContestant:
    """The contestant "backpropagation"."""
    return JaxContestant(folder, layer, stock=False)


if __name__ == "__main__":
    serve(build)
