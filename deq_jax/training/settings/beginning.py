"""The groups of a run's settings that say what it begins with, and what it is judged by.

The docstring under a field is its help on the command line: `python train.py --help`.
"""

from dataclasses import dataclass
from pathlib import Path

from deq_jax.training.settings.checks import require_not_negative, require_positive


@dataclass(frozen=True)
class InitialConfig:
    """The weights that a run begins with: drawn from its seed, or another run's."""

    run: Path | None = None
    """Folder of another run of such a model, whose weights this one begins with; its optimiser begins anew."""
    checkpoint: str = "last"
    """Which of its checkpoints: last, best, or a step."""


@dataclass(frozen=True)
class ValidationConfig:
    """A part of the training split that is not trained on, and by which the best checkpoint is chosen."""

    share: float = 0.0
    """Its share of the training split, drawn by the seed; 0: none, and the best is chosen by the test split."""
    patience: int | None = None
    """Stop after so many evaluations in a row without a better result on it. None: never."""

    def __post_init__(self) -> None:
        """Raises ValueError on a share that leaves nothing to train on."""
        require_not_negative(self, "share")
        if self.share >= 1:
            raise ValueError(f"share must be below 1, but is {self.share}")
        if self.patience is not None:
            require_positive(self, "patience")
