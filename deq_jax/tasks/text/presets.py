"""The presets: runs that can be started by name."""

import dataclasses
from pathlib import Path

from deq_jax.tasks.text.config import Config, DataConfig, ModelConfig
from deq_jax.training.settings.solves import AdjointConfig, EvaluationSettings, SolverConfig
from deq_jax.training.settings.update import OptimizerConfig


def text() -> Config:
    """The source code of Python's standard library, byte by byte, by a causal Transformer's equilibrium.

    python train.py text
    """
    return Config(
        out=Path("runs/text"),
        epochs=3,
        batch_size=16,
        solver=SolverConfig(tol=5e-2, max_iter=16),
        adjoint=AdjointConfig(tol=1e-1, max_iter=10),
        optimizer=OptimizerConfig(method="adamw", schedule="onecycle", learning_rate=2e-3, warmup=0.1, clip=1.0),
        evaluation=EvaluationSettings(radius_samples=0, max_iter=30),
        data=DataConfig(epoch=6400),
        model=ModelConfig(),
    )


def text_explicit() -> Config:
    """An ordinary Transformer of as many parameters: four layers of weights of their own.

    python train.py text-explicit
    """
    equilibrium = text()
    return dataclasses.replace(
        equilibrium,
        out=Path("runs/text-explicit"),
        epochs=6,
        model=dataclasses.replace(equilibrium.model, kind="layers", layers=4, features=72, inner_features=300),
    )


PRESETS = {"text": text, "text-explicit": text_explicit}
