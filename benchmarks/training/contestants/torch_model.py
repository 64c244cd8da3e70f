"""The chapter's model in PyTorch, with a layer of the contestant's own around the cell; everything else is shared."""

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 — PyTorch's own habit, and the chapter's
from torch import nn

from benchmarks.training.exchange import (
    INITIAL,
    Arrays,
    Problem,
    channels_first,
    channels_last,
    from_torch,
    read,
    to_torch,
)

MakeLayer = Callable[[nn.Module, Problem], nn.Module]


class ResNetLayer(nn.Module):
    """The chapter's cell, word for word but for the lines that it lost."""

    def __init__(self, n_channels: int, n_inner_channels: int, kernel_size: int = 3, num_groups: int = 8):
        super().__init__()
        self.conv1 = nn.Conv2d(n_channels, n_inner_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.conv2 = nn.Conv2d(n_inner_channels, n_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm1 = nn.GroupNorm(num_groups, n_inner_channels)
        self.norm2 = nn.GroupNorm(num_groups, n_channels)
        self.norm3 = nn.GroupNorm(num_groups, n_channels)
        self.conv1.weight.data.normal_(0, 0.01)
        self.conv2.weight.data.normal_(0, 0.01)

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Evaluate ``f(z, x)``."""
        y = self.norm1(F.relu(self.conv1(z)))
        return self.norm3(F.relu(z + self.norm2(x + self.conv2(y))))


class _WatchedCell(nn.Module):
    """A cell that counts, and adds a parameter, zero, to its output; that parameter's gradient is the adjoint ``g``."""

    def __init__(self, cell: nn.Module):
        super().__init__()
        self.cell = cell
        self.adjoint: Any = None
        self.counts: dict[str, int] = {}

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if self.adjoint is None:
            return self.cell(z, x)
        self.counts["forward"] += 1
        return _CountProducts.apply(self.cell(z, x) + self.adjoint, self.counts)


class _CountProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fz: torch.Tensor, counts: dict[str, int]) -> torch.Tensor:
        ctx.counts = counts
        return fz.view_as(fz)

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor, None]:
        ctx.counts["backward"] += 1
        return cotangent, None


def build_model(problem: Problem, make_layer: MakeLayer) -> nn.Sequential:
    """The chapter's classifier with ``make_layer(cell, problem)`` inside."""
    height, width, image_channels = problem.image
    chan, side, pool = problem.channels, problem.kernel_size, problem.pool
    cell = ResNetLayer(chan, problem.inner_channels, kernel_size=side, num_groups=problem.num_groups)
    layers = {
        "stem": nn.Conv2d(image_channels, chan, kernel_size=side, bias=True, padding=side // 2),
        "stem_norm": nn.BatchNorm2d(chan),
        "deq": make_layer(_WatchedCell(cell), problem),
        "head_norm": nn.BatchNorm2d(chan),
        "pool": nn.AvgPool2d(pool, pool),
        "flatten": nn.Flatten(),
        "head": nn.Linear(chan * (height // pool) * (width // pool), problem.num_classes),
    }
    return nn.Sequential(OrderedDict(layers))


class TorchContestant:
    """A contestant in PyTorch: the chapter's training step around a layer of the contestant's choice."""

    def __init__(self, folder: Path, make_layer: MakeLayer, **versions: str):
        # One thread a core this process may use, as in JAX.
        torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        self.problem, self.weights, images, labels = read(folder)
        self.images = torch.from_numpy(channels_first(images)).float() / 255
        self.labels = torch.from_numpy(labels).long()
        self.versions = {"torch": torch.__version__, **versions}
        self.model = build_model(self.problem, make_layer)
        self.watched = next(module for module in self.model.modules() if isinstance(module, _WatchedCell))
        self.model.train()
        self.reset()

    def reset(self, weights: str = INITIAL) -> None:
        """To other weights; see :class:`benchmarks.training.worker.Contestant`."""
        arrays = to_torch(self.weights[weights], self.problem)
        with torch.no_grad():
            for name, parameter in self._parameters().items():
                parameter.copy_(torch.from_numpy(arrays[name]))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.problem.learning_rate)

    def step(self, k: int) -> None:
        """One training step; see :class:`benchmarks.training.worker.Contestant`."""
        loss = F.cross_entropy(self.model(self.images[k]), self.labels[k])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def inspect(self, k: int) -> tuple[dict[str, int], Arrays]:
        """Counts and gradients; see :class:`benchmarks.training.worker.Contestant`."""
        height, width, _ = self.problem.image
        states: list[torch.Tensor] = []
        hook = self.model.deq.register_forward_hook(lambda module, inputs, output: states.append(output.detach()))
        self.watched.counts = {"forward": 0, "backward": 0}
        self.watched.adjoint = torch.zeros(
            len(self.images[k]), self.problem.channels, height, width, requires_grad=True
        )
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(self.images[k]), self.labels[k]).backward()
        hook.remove()
        adjoint, self.watched.adjoint = self.watched.adjoint.grad, None
        grads = {name: parameter.grad.numpy().copy() for name, parameter in self._parameters().items()}
        arrays = from_torch(grads, self.problem, self.weights[INITIAL])
        arrays["z"] = channels_last(states[0].numpy())
        arrays["g"] = channels_last(adjoint.numpy())
        return dict(self.watched.counts), arrays

    def _parameters(self) -> dict[str, nn.Parameter]:
        """By PyTorch's names in the common order: the cell's start with "cell"."""
        return {
            ("cell." + name.split("cell.")[-1] if "cell." in name else name): parameter
            for name, parameter in self.model.named_parameters()
        }
