"""What a run of any task takes: for how long, where, and how it solves and updates."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from deq_jax.training.settings.beginning import InitialConfig, ValidationConfig
from deq_jax.training.settings.checks import require_not_negative, require_positive
from deq_jax.training.settings.precision import Precision
from deq_jax.training.settings.solves import AdjointConfig, EarlyConfig, EvaluationSettings, SolverConfig
from deq_jax.training.settings.update import OptimizerConfig, PenaltyConfig


@dataclass(frozen=True)
class Settings:
    """A run: for how long, with what, and where to keep it."""

    out: Path
    """Folder of the run. The same run there is continued."""
    seed: int = 0
    """Settles the initial weights and the order of the samples; below 2**32."""
    epochs: int = 50
    """Passes over the training split; the rate's schedule spans them."""
    max_steps: int | None = None
    """Stop after this many steps in all, with a checkpoint and an evaluation; the schedule stays that of all epochs."""
    batch_size: int = 100
    """Samples a step. An epoch's incomplete last batch is left out."""
    micro_batches: int = 1
    """Parts that a batch is cut into, to be computed one after the other in the memory of one: their gradients are
    averaged for one update. BatchNorm has the statistics of a part each, and moves its averages with every part."""
    precision: Precision = "default"
    """float32: products in full; tf32: of ten bits, where devices have them; default: as JAX has them, TF32 on recent
    NVIDIA GPUs; bfloat16: that, and solves evaluate the cell in bfloat16. Parameters, states and sums stay float32."""
    devices: int | None = None
    """Devices to train on, which share each batch evenly. None: all that there are."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints within an epoch; every epoch and the run also end with one."""
    checkpoint_dir: str | None = None
    """Another folder for the checkpoints, empty at first: absolute, or a URL such as gs://bucket/run. None: the run's
    own."""
    average_decay: float | None = None
    """Evaluate the moving average of weights, of which this share is kept every step. None: the weights themselves."""
    initial: InitialConfig = field(default_factory=InitialConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    adjoint: AdjointConfig = field(default_factory=AdjointConfig)
    early: EarlyConfig = field(default_factory=EarlyConfig)
    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def __post_init__(self) -> None:
        """Raises ValueError on a run that cannot be."""
        require_positive(self, "batch_size", "micro_batches", "checkpoint_minutes")
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"batch_size must fall evenly into micro_batches, but is {self.batch_size}, and they are "
                f"{self.micro_batches}"
            )
        require_positive(self, "epochs", at_most=1_000_000)
        # Beyond, JAX would take it modulo 2**32, and so draw another seed's weights.
        require_not_negative(self, "seed", at_most=2**32 - 1)
        if self.checkpoint_dir is not None and not (
            self.checkpoint_dir.startswith("/") or "://" in self.checkpoint_dir
        ):
            raise ValueError(f"checkpoint_dir must be absolute or a URL, but is {self.checkpoint_dir}")
        require_positive(self, *(name for name in ("max_steps", "devices") if getattr(self, name) is not None))
        if self.average_decay is not None and not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay must be from 0 to below 1, but is {self.average_decay}")

    @classmethod
    def names(cls) -> list[str]:
        """The names of its fields."""
        return [field.name for field in dataclasses.fields(cls)]
