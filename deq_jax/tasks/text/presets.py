"""The presets: runs that can be started by name."""

import dataclasses
from pathlib import Path

from deq_jax.tasks.text.config import Config, DataConfig, ModelConfig
from deq_jax.training.settings.solves import AdjointConfig, EarlyConfig, EvaluationSettings, SolverConfig
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


def text_gpu() -> Config:
    """The layer, the solves and the rate of the DEQ-Transformer that its authors train on WikiText-103; one GPU.

    python train.py text-gpu --data.source FOLDER

    FOLDER holds the text, in folders train and test. The network has been built, not trained: of its authors'
    settings it has features, heads, segments, memory, dropout, rate and evaluations; its embedding is tied,
    where theirs is adaptive. In the first tenth of its steps two evaluations are unrolled, as in theirs.
    """
    return Config(
        out=Path("runs/text-gpu"),
        epochs=30,
        batch_size=28,
        early=EarlyConfig(share=0.107, unroll=2),
        solver=SolverConfig(tol=1e-2, max_iter=30),
        adjoint=AdjointConfig(method="broyden", tol=1e-2, max_iter=35, m=30),
        optimizer=OptimizerConfig(schedule="onecycle", learning_rate=2.5e-4, warmup=0.053, clip=0.25),
        evaluation=EvaluationSettings(radius_samples=0),
        data=DataConfig(unit="tokens", vocabulary=32_512, length=150, segments=2, epoch=280_000, test=1024),
        model=ModelConfig(features=700, inner_features=48_000, heads=10, memory=150, dropout=0.05),
    )


PRESETS = {"text": text, "text-explicit": text_explicit, "text-gpu": text_gpu}
