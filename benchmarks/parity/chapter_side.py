"""The chapter's training, in a process of PyTorch's own environment: ``… -m benchmarks.parity.chapter_side FOLDER``."""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 — PyTorch's own habit, and the chapter's
from torch import nn

from benchmarks.parity.settings import FINAL_RATE, TIGHT_ITERATIONS, TIGHT_TOL
from benchmarks.training.contestants import chapter
from benchmarks.training.contestants.torch_model import TorchContestant
from benchmarks.training.exchange import Problem


def tight_layer(cell: nn.Module, problem: Problem) -> nn.Module:
    """The chapter's layer, solved far beyond the tolerance of training."""
    return chapter.DEQFixedPoint(cell, chapter.anderson, tol=TIGHT_TOL, max_iter=TIGHT_ITERATIONS, m=problem.m)


def first_outputs(folder: Path) -> tuple[np.ndarray, float]:
    """Logits of the first batch at the first weights, in training mode, and the residual that they rest on."""
    contestant = TorchContestant(folder, tight_layer)
    with torch.no_grad():
        x = contestant.model.stem_norm(contestant.model.stem(contestant.images[0]))
        z, residuals = chapter.anderson(
            lambda z: contestant.watched(z, x),
            torch.zeros_like(x),
            tol=TIGHT_TOL,
            max_iter=TIGHT_ITERATIONS,
            m=contestant.problem.m,
        )
        model = contestant.model
        logits = model.head(model.flatten(model.pool(model.head_norm(z))))
    return logits.numpy(), residuals[-1]


def losses(folder: Path) -> np.ndarray:
    """The loss of every step of the chapter's training: Adam, its rate along a half cosine."""
    contestant = TorchContestant(folder, chapter.layer)
    steps = len(contestant.images)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(contestant.optimizer, steps, eta_min=FINAL_RATE)
    found = []
    for k in range(steps):
        loss = F.cross_entropy(contestant.model(contestant.images[k]), contestant.labels[k])
        contestant.optimizer.zero_grad()
        loss.backward()
        contestant.optimizer.step()
        schedule.step()
        found.append(loss.item())
    return np.array(found)


if __name__ == "__main__":
    run = Path(sys.argv[1])
    logits, residual = first_outputs(run)
    np.savez(run / "chapter.npz", logits=logits, residual=residual, losses=losses(run), version=torch.__version__)
