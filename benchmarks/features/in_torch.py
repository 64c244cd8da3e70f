"""The libraries in PyTorch: torchdeq, and the chapter's own code."""

import pkgutil
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.features.questions import (
    MAX_ITER,
    START,
    TOL,
    W,
    X,
    answer,
    close,
    derivative,
    exact,
    leaving,
    stayed,
)


class Library:
    """What is asked of both in the same way."""

    def solve(self, W: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The equilibria of a batch; in PyTorch every cell closes over its parameters."""
        raise NotImplementedError

    def gradient(self, W: Any, create_graph: bool = False) -> Any:
        W = W if isinstance(W, torch.Tensor) else torch.tensor(W, requires_grad=True)
        loss = 0.5 * (self.solve(W, torch.tensor(X)) ** 2).sum()
        (gradient,) = torch.autograd.grad(loss, W, create_graph=create_graph)
        return gradient if create_graph else gradient.numpy()

    def exact_gradient(self) -> bool:
        return close(self.gradient(W), exact()[1])

    closed_over = exact_gradient

    def second_derivative(self) -> bool:
        w = torch.tensor(W, requires_grad=True)
        (squared,) = torch.autograd.grad((self.gradient(w, create_graph=True) ** 2).sum(), w)
        return close((squared.numpy() / W.size).sum(), derivative(self.gradient), 1e-4)

    def forward_mode(self) -> bool:
        solve = lambda x: self.solve(torch.tensor(W), x)
        _, tangent = torch.func.jvp(solve, (torch.tensor(X),), (torch.ones_like(torch.tensor(X)),))
        h = 1e-5
        up, down = (solve(torch.tensor(X + sign * h)) for sign in (1, -1))
        return close(tangent.detach(), (up - down).detach() / (2 * h), 1e-4)

    def neighbours(self) -> bool:
        together = self.solve(torch.tensor(W), torch.tensor(X)).detach()
        return close(self.solve(torch.tensor(W), torch.tensor(X[:1])).detach(), together[:1], 1e-12)

    def nan(self) -> bool:
        bad = X.copy()
        bad[1] = np.nan
        return close(self.solve(torch.tensor(W), torch.tensor(bad)).detach()[::2], exact()[0][::2])


class Torchdeq(Library):
    """torchdeq with Anderson acceleration and its implicit gradient."""

    def run(self, f: Callable, z0: torch.Tensor, **settings: Any) -> Any:
        import torchdeq

        options = {"f_solver": "anderson", "b_solver": "anderson", "f_stop_mode": "rel", "b_stop_mode": "rel"}
        options |= {"f_tol": TOL, "b_tol": TOL, "f_max_iter": MAX_ITER, "b_max_iter": MAX_ITER, "ift": True}
        writer = settings.pop("backward_writer", None)
        return torchdeq.get_deq(**(options | settings))(f, z0, backward_writer=writer)

    def solve(self, W: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.run(lambda z: torch.tanh(z @ W + x), torch.zeros_like(x))[0][-1]

    def anderson(self) -> bool:
        from torchdeq.solver import get_solver

        return callable(get_solver("anderson"))

    def broyden(self) -> bool:
        from torchdeq.solver import get_solver

        return callable(get_solver("broyden"))

    def phantom(self) -> bool:
        w = torch.tensor(W, requires_grad=True)
        x = torch.tensor(X)
        states, _ = self.run(lambda z: torch.tanh(z @ w + x), torch.zeros_like(x), ift=False, grad=5, tau=0.8)
        (gradient,) = torch.autograd.grad(0.5 * (states[-1] ** 2).sum(), w)
        return close(gradient, exact()[1], 0.9)

    def best(self) -> bool:
        from torchdeq.solver import get_solver

        z, _, _ = get_solver("fixed_point_iter")(leaving, torch.full((1, 1), START), max_iter=12, tol=TOL)
        return stayed(float(z))

    def per_sample(self) -> bool:
        x, w = torch.tensor(X), torch.tensor(W)
        _, info = self.run(lambda z: torch.tanh(z @ w + x), torch.zeros_like(x))
        return info["rel_lowest"].shape == info["nstep"].shape == (3,)

    def backward_report(self) -> bool:
        reports: list = []
        w, x = torch.tensor(W, requires_grad=True), torch.tensor(X)
        states, _ = self.run(lambda z: torch.tanh(z @ w + x), torch.zeros_like(x), backward_writer=reports.append)
        states[-1].sum().backward()
        return bool(reports)

    def jacobian_penalty(self) -> bool:
        from torchdeq.loss import jac_reg, power_method

        z = torch.tensor(X, requires_grad=True)
        _, radius = power_method(0.5 * z, z, n_iters=20)
        return bool(jac_reg(0.5 * z, z) > 0) and close(radius, 0.5 * torch.ones_like(radius), 1e-2)

    def multiscale(self) -> bool:
        import torchdeq

        names = {module.name for module in pkgutil.walk_packages(torchdeq.__path__)}
        return any("multiscale" in name or "mdeq" in name for name in names)

    def training(self) -> bool:
        import torchdeq

        return bool({module.name for module in pkgutil.iter_modules(torchdeq.__path__)} & {"training", "train"})


class Chapter(Library):
    """The chapter's code; its states are images."""

    def layer(self, W: torch.Tensor) -> Any:
        from benchmarks.training.contestants.chapter import DEQFixedPoint, anderson

        class Cell(torch.nn.Module):
            def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
                return torch.tanh((z.reshape(len(z), -1) @ W).reshape(z.shape) + x)

        return DEQFixedPoint(Cell(), anderson, tol=TOL, max_iter=MAX_ITER, lam=1e-12)

    def solve(self, W: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.layer(W)(x[:, :, None, None].contiguous())[:, :, 0, 0]

    def anderson(self) -> bool:
        from benchmarks.training.contestants import chapter

        return callable(chapter.anderson)

    def absent(self) -> bool:
        """Read in its text, which is two solvers and a layer of exact gradients: it has nothing of the kind."""
        return False

    # One residual of the whole batch decides, the last iterate is returned, and a loop over epochs is all the training.
    broyden = phantom = best = per_sample = jacobian_penalty = multiscale = training = absent

    def backward_report(self) -> bool:
        layer = self.layer(torch.tensor(W, requires_grad=True))
        layer(torch.tensor(X)[:, :, None, None].contiguous()).sum().backward()
        return len(layer.backward_res) > 0


if __name__ == "__main__":
    answer({"torchdeq": Torchdeq, "chapter": Chapter}[sys.argv[1]]())
