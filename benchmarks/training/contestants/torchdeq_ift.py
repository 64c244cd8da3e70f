"""torchdeq with its exact implicit gradient and Anderson acceleration, both ways.

From its own documentation (torchdeq 0.1.0, README and the docstrings of ``get_deq``, ``DEQBase`` and
``register_solver``): ``get_deq(ift=True, f_solver=…, b_solver=…)``. Its defaults would stop on absolute residuals
(``stop_mode="abs"``); we ask for relative ones, forward and backward, with everyone's tolerance and evaluations. The
memory ``m`` reaches the backward solver only through a registered solver, so we register Anderson with ours.
"""

import functools
import importlib.metadata
from pathlib import Path

import torch
import torchdeq
from torch import nn
from torchdeq.solver import register_solver
from torchdeq.solver.anderson import anderson_solver

from benchmarks.training.contestants.torch_model import TorchContestant
from benchmarks.training.exchange import Problem
from benchmarks.training.worker import serve


class Layer(nn.Module):
    """torchdeq's layer around a cell, started from zeros."""

    def __init__(self, cell: nn.Module, problem: Problem, lam: float = 1e-4):
        super().__init__()
        self.f = cell
        register_solver("anderson_m", functools.partial(anderson_solver, m=problem.m, lam=lam))
        self.solve = torchdeq.get_deq(
            ift=True,
            f_solver="anderson_m",
            b_solver="anderson_m",
            f_max_iter=problem.max_iter,
            b_max_iter=problem.max_iter,
            f_tol=problem.tol,
            b_tol=problem.tol,
            f_stop_mode="rel",
            b_stop_mode="rel",
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The equilibrium for the injection ``x``."""
        states, _ = self.solve(lambda z: self.f(z, x), torch.zeros_like(x))
        return states[-1]


def build(folder: Path) -> TorchContestant:
    """The contestant "torchdeq"."""
    return TorchContestant(folder, Layer, torchdeq=importlib.metadata.version("torchdeq"))


if __name__ == "__main__":
    serve(build)
