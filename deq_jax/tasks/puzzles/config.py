"""Every setting of a run that learns to solve puzzles.

The docstring under a field is its help on the command line: `python train.py --help`.
"""

from dataclasses import dataclass, field
from typing import Literal

from deq_jax.training.settings.checks import require_not_negative, require_positive
from deq_jax.training.settings.settings import Settings


@dataclass(frozen=True)
class DataConfig:
    """The puzzles: which, how hard, and how many."""

    puzzle: Literal["prefix-sums", "maze", "sudoku"] = "prefix-sums"
    """Strings of bits, perfect mazes, or Sudoku boards."""
    difficulty: int = 32
    """Bits of a string, tiles a side of a maze, or givens of a board."""
    side: int = 6
    """Of a Sudoku board: 4, 6 or 9."""
    epoch: int = 6400
    """Problems between two looks at the test split. None of them comes twice."""
    test: int = 256
    """Problems to evaluate on."""

    def __post_init__(self) -> None:
        """Raises ValueError on a number that is none."""
        require_positive(self, "difficulty", "side", "epoch", "test")


@dataclass(frozen=True)
class ModelConfig:
    """The network: an encoder, an equilibrium or what stands in its place, and a head, all of them local."""

    kind: Literal["equilibrium", "unrolled", "without-recall", "layers"] = "equilibrium"
    """The equilibrium; the same cell evaluated a fixed number of times, from zeros; that without seeing the problem in
    every evaluation; or ordinary layers, cells with weights of their own."""
    channels: int = 32
    """Channels of the state."""
    inner_channels: int = 32
    """Channels of the injection, and between the cell's two products."""
    kernel_size: int = 3
    """Side of the kernels, odd. Sudoku has none."""
    gradient: Literal["segments", "adjoint"] = "segments"
    """An equilibrium learns from segments of evaluations, each differentiated through, the state carried on without a
    gradient; or solves as in an evaluation, and differentiates by the adjoint."""
    segments: int = 2
    """Segments of a training step; the answer after each of them counts."""
    steps: int = 16
    """Evaluations of a segment. Of the unrolled network and of that without recall: all that they are trained with."""
    before: int = 0
    """Evaluations before the first segment at most, a random number of them in every batch, without a gradient: so
    what is late in a long solve is trained on, too. 0: none."""
    noise: float = 0.5
    """Standard deviation of what is added to the state before every evaluation of a training step."""
    start: float = 1.0
    """Standard deviation of the random states that half of the samples start from, in training; the others from 0."""
    layers: int = 6
    """Ordinary layers."""

    def __post_init__(self) -> None:
        """Raises ValueError on a setting that no network can have."""
        require_positive(self, "channels", "inner_channels", "kernel_size", "segments", "steps", "layers")
        require_not_negative(self, "before", "noise", "start")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, but is {self.kernel_size}")


@dataclass(frozen=True)
class Config(Settings):
    """A training run on puzzles: on which, with what network, for how long, and where to keep it."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        """Raises ValueError on a run that cannot be."""
        super().__post_init__()
        if self.penalty.weight and (self.model.kind, self.model.gradient) != ("equilibrium", "adjoint"):
            raise ValueError("penalty.weight needs model.kind equilibrium and model.gradient adjoint")
