"""The presets: runs that can be started by name."""

import dataclasses
from pathlib import Path

from deq_jax.tasks.inverse.config import Config, ModelConfig
from deq_jax.training.settings.solves import AdjointConfig, EvaluationSettings, SolverConfig
from deq_jax.training.settings.update import OptimizerConfig


def deblur() -> Config:
    """Patches of two photographs that ship with scikit-learn, from a Gaussian blur of 1.5 pixels and noise.

    python train.py deblur
    """
    return Config(
        out=Path("runs/deblur"),
        epochs=4,
        batch_size=16,
        solver=SolverConfig(tol=1e-4, max_iter=40),
        adjoint=AdjointConfig(tol=1e-2, max_iter=20),
        optimizer=OptimizerConfig(method="adamw", schedule="onecycle", learning_rate=3e-3, warmup=0.1, clip=1.0),
        evaluation=EvaluationSettings(radius_samples=0),
    )


def deblur_unrolled() -> Config:
    """The same cell, evaluated ten times from what was measured, and trained by backpropagation.

    python train.py deblur-unrolled
    """
    equilibrium = deblur()
    return dataclasses.replace(
        equilibrium,
        out=Path("runs/deblur-unrolled"),
        solver=dataclasses.replace(equilibrium.solver, max_iter=10),
        model=ModelConfig(kind="unrolled", steps=10),
    )


PRESETS = {"deblur": deblur, "deblur-unrolled": deblur_unrolled}
