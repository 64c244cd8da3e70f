"""The chapter's own PyTorch code, with the lines that it lost, and ``torch.linalg.solve`` for ``torch.solve``.

Source: the chapter, "Implementation of the forward pass" and "Implementing the backward pass".
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import autograd, nn

from benchmarks.training.contestants.torch_model import TorchContestant
from benchmarks.training.exchange import Problem
from benchmarks.training.worker import serve


def anderson(
    f: Callable[[torch.Tensor], torch.Tensor],
    x0: torch.Tensor,
    m: int = 5,
    lam: float = 1e-4,
    max_iter: int = 50,
    tol: float = 1e-2,
    beta: float = 1.0,
) -> tuple[torch.Tensor, list[float]]:
    """Anderson acceleration for fixed point iteration."""
    bsz, d, H, W = x0.shape
    X = torch.zeros(bsz, m, d * H * W, dtype=x0.dtype, device=x0.device)
    F = torch.zeros(bsz, m, d * H * W, dtype=x0.dtype, device=x0.device)
    X[:, 0], F[:, 0] = x0.view(bsz, -1), f(x0).view(bsz, -1)
    X[:, 1], F[:, 1] = F[:, 0], f(F[:, 0].view_as(x0)).view(bsz, -1)
    H = torch.zeros(bsz, m + 1, m + 1, dtype=x0.dtype, device=x0.device)
    H[:, 0, 1:] = H[:, 1:, 0] = 1
    y = torch.zeros(bsz, m + 1, 1, dtype=x0.dtype, device=x0.device)
    y[:, 0] = 1
    res = []
    for k in range(2, max_iter):
        n = min(k, m)
        G = F[:, :n] - X[:, :n]
        eye = torch.eye(n, dtype=x0.dtype, device=x0.device)[None]
        H[:, 1 : n + 1, 1 : n + 1] = torch.bmm(G, G.transpose(1, 2)) + lam * eye
        alpha = torch.linalg.solve(H[:, : n + 1, : n + 1], y[:, : n + 1])[:, 1 : n + 1, 0]
        X[:, k % m] = beta * (alpha[:, None] @ F[:, :n])[:, 0] + (1 - beta) * (alpha[:, None] @ X[:, :n])[:, 0]
        F[:, k % m] = f(X[:, k % m].view_as(x0)).view(bsz, -1)
        res.append((F[:, k % m] - X[:, k % m]).norm().item() / (1e-5 + F[:, k % m].norm().item()))
        if res[-1] < tol:
            break
    return X[:, k % m].view_as(x0), res


class DEQFixedPoint(nn.Module):
    """The chapter's layer: a solve outside the tape, one call on it, and a hook that solves the adjoint equation."""

    def __init__(self, f: nn.Module, solver: Callable[..., tuple[torch.Tensor, list[float]]], **kwargs: Any):
        super().__init__()
        self.f = f
        self.solver = solver
        self.kwargs = kwargs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The equilibrium for the injection ``x``."""
        with torch.no_grad():
            z, self.forward_res = self.solver(lambda z: self.f(z, x), torch.zeros_like(x), **self.kwargs)
        z = self.f(z, x)
        z0 = z.clone().detach().requires_grad_()
        f0 = self.f(z0, x)

        def backward_hook(grad: torch.Tensor) -> torch.Tensor:
            g, self.backward_res = self.solver(
                lambda y: autograd.grad(f0, z0, y, retain_graph=True)[0] + grad, grad, **self.kwargs
            )
            return g

        z.register_hook(backward_hook)
        return z


def layer(cell: nn.Module, problem: Problem) -> DEQFixedPoint:
    """The chapter's layer at the chapter's settings."""
    return DEQFixedPoint(cell, anderson, tol=problem.tol, max_iter=problem.max_iter, m=problem.m)


def build(folder: Path) -> TorchContestant:
    """The contestant "chapter"."""
    return TorchContestant(folder, layer)


if __name__ == "__main__":
    serve(build)
