"""Runs on text small enough for tests."""

import dataclasses
from pathlib import Path

from deq_jax.tasks.text.config import Config, DataConfig, ModelConfig
from deq_jax.training.settings.solves import EvaluationSettings, SolverConfig

MODEL = ModelConfig(features=8, inner_features=16, heads=2, layers=2, memory=4)
DATA = DataConfig(length=5, segments=2, epoch=16, test=6)
LINES = "".join(f"def f{i}(x):\n    return x + {i}\n" for i in range(40))


def source(folder: Path) -> Path:
    """A text file."""
    path = folder / "lines.py"
    path.write_text(LINES)
    return path


def tiny(out: Path, model: dict | None = None, data: dict | None = None, **changes) -> Config:
    """Two epochs of two steps on a few lines beside the run."""
    settings = {
        "epochs": 2,
        "batch_size": 8,
        "solver": SolverConfig(max_iter=6, m=3),
        "evaluation": EvaluationSettings(radius_samples=0),
        "data": dataclasses.replace(DATA, **{"source": str(source(out.parent)), **(data or {})}),
        "model": dataclasses.replace(MODEL, **(model or {})),
    }
    return Config(out=out, **settings | changes)
