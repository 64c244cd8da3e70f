"""Runs on puzzles small enough for tests."""

import dataclasses
from pathlib import Path

from deq_jax.tasks.puzzles.config import Config, DataConfig, ModelConfig
from deq_jax.training.settings.solves import EvaluationSettings, SolverConfig

MODEL = ModelConfig(channels=4, inner_channels=6, segments=2, steps=3, layers=2)


def tiny(out: Path, model: dict | None = None, data: DataConfig | None = None, **changes) -> Config:
    """Two epochs of two steps on strings of six bits."""
    settings = {
        "epochs": 2,
        "batch_size": 8,
        "solver": SolverConfig(method="forward-iteration", max_iter=6),
        "evaluation": EvaluationSettings(radius_samples=0),
        "data": data or DataConfig("prefix-sums", difficulty=6, epoch=16, test=12),
        "model": dataclasses.replace(MODEL, **(model or {})),
    }
    return Config(out=out, **settings | changes)
