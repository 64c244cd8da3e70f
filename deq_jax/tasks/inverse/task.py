"""Deblurring as a task: its data, loss and evaluation, for a run that knows none."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from deq_jax.gradients.adjoint import Adjoint, Solver
from deq_jax.nn.deq import prepared
from deq_jax.tasks.inverse.config import Config, DataConfig
from deq_jax.tasks.inverse.data import Pair, Patched
from deq_jax.tasks.inverse.model import Deblurrer, build_model
from deq_jax.training.disk.folder import read_config
from deq_jax.training.errors import UserError
from deq_jax.training.settings.settings import Settings
from deq_jax.training.task import Data, Outcome, Task

OPENER = __name__
"""Where a run's task can be opened again, as config.json has it."""


def open_task(config: Config, splits: Iterable[str] = ("train", "test")) -> Task:
    """The task that the settings describe, with these splits of its data."""

    def model(solver: Solver, adjoint: Adjoint, rngs: nnx.Rngs) -> Deblurrer:
        return build_model(config, solver, adjoint, rngs)

    return Task(
        data=Data(
            {split: _split(config.data, split, config.seed) for split in splits},
            name=f"photographs blurred by {config.data.blur:g} pixels",
            unit="patches",
        ),
        model=model,
        loss=restored,
        evaluate=lambda model, pair: restored(model, pair, None, is_training=False),
        metrics={"psnr": " dB"},
        best="max",
    )


def reopened(run: Path) -> tuple[Task, Settings, Config]:
    """The task of a run, with the test split alone, and how it was trained."""
    config = read_config(run, Config)
    return open_task(config, ["test"]), config, config


def of_difficulty(config: Config, difficulty: int) -> Config:
    """There is one difficulty alone; raises UserError."""
    del config
    raise UserError(f"--difficulty {difficulty} goes with runs on puzzles; a blur is as it was in training.")


def of_file(config: Config, path: Path) -> Task:
    """Photographs of one's own are not read; raises UserError."""
    del config
    raise UserError(f"--problems {path} goes with runs on puzzles.")


def restored(model: Deblurrer, pair: Pair, report: Any, is_training: bool = True) -> Outcome:
    """The mean squared error, a hundredfold, and the peak signal-to-noise ratio ``−10 log₁₀`` of it, in decibels."""
    solution = model(pair.measured, report=report, is_training=is_training)
    error = jnp.mean((solution.value[..., 0] - pair.clean) ** 2, axis=(1, 2))
    x, cell = model.inject(pair.measured), prepared(model.cell)
    return Outcome(
        100 * error,
        solution,
        (lambda z: cell(z, x)) if model.deq is not None else None,
        metrics={"psnr": -10 * jnp.log10(error)},
    )


def _split(data: DataConfig, split: str, seed: int) -> Patched | Pair:
    if split == "train":
        return Patched(data, "train", data.epoch, seed)
    # The same for every run, so that runs can be compared.
    return Patched(data, "test", data.test, seed=0)[np.arange(data.test)]
