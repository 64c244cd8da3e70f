"""Runs on blurred photographs small enough for tests."""

from pathlib import Path

from deq_jax.tasks.inverse.config import Config, DataConfig, ModelConfig
from deq_jax.training.settings.solves import AdjointConfig, EvaluationSettings, SolverConfig


def tiny(out: Path, **changes) -> Config:
    """One epoch of three steps on patches of 8×8 pixels."""
    settings = {
        "epochs": 1,
        "batch_size": 4,
        "solver": SolverConfig(method="forward-iteration", max_iter=6),
        "adjoint": AdjointConfig(kind="phantom", steps=2),
        "evaluation": EvaluationSettings(radius_samples=0),
        "data": DataConfig(side=8, epoch=12, test=4),
        "model": ModelConfig(channels=4),
    }
    return Config(out=out, **settings | changes)
