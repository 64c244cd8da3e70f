"""Every setting of a run that learns to deblur.

The docstring under a field is its help on the command line: `python train.py --help`.
"""

from dataclasses import dataclass, field
from typing import Literal

from deq_jax.training.settings.checks import require_not_negative, require_positive
from deq_jax.training.settings.settings import Settings


@dataclass(frozen=True)
class DataConfig:
    """The photographs, which ship with scikit-learn, and what happens to them."""

    side: int = 32
    """Side of the patches that are cut out of them, in pixels."""
    blur: float = 1.5
    """Standard deviation of the Gaussian blur, in pixels."""
    noise: float = 0.01
    """Standard deviation of the noise that is added then, where white is 1."""
    epoch: int = 1600
    """Patches between two looks at the test split. None of them is to be expected twice."""
    test: int = 128
    """Patches to evaluate on, of a part of the photographs that training does not see."""

    def __post_init__(self) -> None:
        """Raises ValueError on a number that is none."""
        require_positive(self, "side", "blur", "epoch", "test")
        require_not_negative(self, "noise")
        if not 8 <= self.side <= 160:
            raise ValueError(f"side must be from 8 to 160, what fits into the photographs' parts, but is {self.side}")


@dataclass(frozen=True)
class ModelConfig:
    """The network: gradient steps to what was measured, and a learned correction after each of them."""

    kind: Literal["equilibrium", "unrolled"] = "equilibrium"
    """Where the steps come to rest; or a fixed number of them, by backpropagation."""
    channels: int = 16
    """Channels of the correction."""
    steps: int = 10
    """Evaluations that the unrolled network is trained with."""

    def __post_init__(self) -> None:
        """Raises ValueError on a setting that no network can have."""
        require_positive(self, "channels", "steps")


@dataclass(frozen=True)
class Config(Settings):
    """A training run on blurred photographs: how blurred, with what network, for how long, and where to keep it."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        """Raises ValueError on a run that cannot be."""
        super().__post_init__()
        if self.penalty.weight and self.model.kind == "unrolled":
            raise ValueError("penalty.weight needs an equilibrium, but model.kind is unrolled")
