"""The presets: runs that can be started by name."""

from pathlib import Path

from deq_jax.tasks.puzzles.config import Config, DataConfig, ModelConfig
from deq_jax.training.settings.solves import AdjointConfig, EvaluationSettings, SolverConfig
from deq_jax.training.settings.update import OptimizerConfig


def prefix_sums() -> Config:
    """Running parities of 32 random bits, to be evaluated on strings of any length.

    python train.py prefix-sums
    """
    return Config(
        out=Path("runs/prefix-sums"),
        epochs=5,
        batch_size=64,
        solver=_SOLVER,
        adjoint=_ADJOINT,
        optimizer=_optimizer(2e-3),
        evaluation=EvaluationSettings(radius_samples=0),
        data=DataConfig("prefix-sums", difficulty=32),
        model=ModelConfig(channels=32, inner_channels=32, segments=2, steps=16),
    )


def maze() -> Config:
    """The way through perfect mazes of 9×9 tiles, to be evaluated on mazes of any size.

    python train.py maze
    """
    return Config(
        out=Path("runs/maze"),
        epochs=4,
        batch_size=16,
        solver=_SOLVER,
        adjoint=_ADJOINT,
        optimizer=_optimizer(3e-3),
        # In mazes larger than those of training some places swing between two states for ever; half steps do not.
        evaluation=EvaluationSettings(radius_samples=0, beta=0.6),
        data=DataConfig("maze", difficulty=9),
        model=ModelConfig(channels=24, inner_channels=24, segments=2, steps=14),
    )


def sudoku() -> Config:
    """Sudoku boards of 6×6 places, 12 of them given.

    python train.py sudoku
    """
    return Config(
        out=Path("runs/sudoku"),
        epochs=3,
        batch_size=32,
        average_decay=0.99,
        solver=_SOLVER,
        adjoint=_ADJOINT,
        optimizer=_optimizer(2e-3),
        evaluation=EvaluationSettings(radius_samples=0),
        data=DataConfig("sudoku", difficulty=12, side=6),
        model=ModelConfig(channels=48, inner_channels=96, segments=2, steps=8, noise=0.2),
    )


# What is known in one place goes on to the next in every evaluation; there is nothing to extrapolate.
_SOLVER = SolverConfig(method="forward-iteration", tol=1e-3, max_iter=200)
_ADJOINT = AdjointConfig(max_iter=30)


def _optimizer(rate: float) -> OptimizerConfig:
    return OptimizerConfig(
        method="adamw", schedule="onecycle", learning_rate=rate, warmup=0.1, weight_decay=1e-3, clip=1.0
    )


PRESETS = {"prefix-sums": prefix_sums, "maze": maze, "sudoku": sudoku}
