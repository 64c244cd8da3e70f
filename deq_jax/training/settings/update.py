"""The groups of a run's settings that say how weights are updated: the optimiser, and a penalty in the loss.

The docstring under a field is its help on the command line: `python train.py --help`.
"""

from dataclasses import dataclass
from typing import Literal

from deq_jax.training.settings.checks import require_not_negative, require_positive, require_share


@dataclass(frozen=True)
class PenaltyConfig:
    """A penalty where the solve stopped that keeps the cell contractive, and so the solves short."""

    kind: Literal["jacobian", "contraction"] = "jacobian"
    """The mean square of ∂f/∂z over all directions; or ‖f(f(z)) − f(z)‖² / ‖f(z) − z‖², by what square one more
    evaluation would shorten the residual. Takes a weight, too."""
    weight: float = 0.0
    """Its weight in the loss; 0: none."""
    share: float = 1.0
    """The share of steps that it is added in, evenly spread; a step without it costs nothing more."""
    start: float = 0.0
    """Where it begins, as a share of the run."""
    stop: float = 1.0
    """Where it ends, as a share of the run."""

    def __post_init__(self) -> None:
        """Raises ValueError on a weight or share that is none."""
        require_not_negative(self, "weight")
        require_share(self, "share", "start", "stop")
        if self.weight and not self.share:
            raise ValueError("share must be positive where weight is; a weight of 0 means no penalty")
        if self.weight and self.start >= self.stop:
            raise ValueError(f"start must be below stop, but is {self.start:g}, and stop {self.stop:g}")


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser, and its rate over the whole run, one step of the schedule every batch."""

    method: Literal["adam", "adamw", "sgd", "lion", "muon"] = "adam"
    """sgd has Nesterov momentum; muon orthogonalises the steps of convolutions, and leaves the rest to AdamW."""
    schedule: Literal["cosine", "onecycle", "constant"] = "cosine"
    """A half cosine from the first step on; a linear rise before it; or the one rate, of which a finished run can be
    made longer."""
    learning_rate: float = 1e-3
    """The highest rate: that of the first step, or that after the rise."""
    final_learning_rate: float = 1e-6
    """Rate that the cosine ends at after the last epoch."""
    warmup: float = 0.2
    """Share of the run that onecycle's rate rises in, from a twenty-fifth."""
    weight_decay: float = 0.0
    """Of kernels only, and with muon of convolutions' only; decoupled from the gradient, in units of the rate."""
    momentum: float = 0.9
    """Momentum of sgd and muon."""
    clip: float | None = None
    """Longest gradient: one of a larger norm is scaled down to it. None: no bound."""
    skip_non_finite: bool = False
    """Leave out steps whose loss or gradient is not finite, and count them, instead of ending the run."""

    def __post_init__(self) -> None:
        """Raises ValueError on a rate that does not train."""
        require_positive(self, "learning_rate")
        require_not_negative(self, "final_learning_rate", "weight_decay", "momentum")
        require_share(self, "warmup")
        if self.clip is not None:
            require_positive(self, "clip")
        if self.momentum >= 1:
            raise ValueError(f"momentum must be below 1, but is {self.momentum}")
        if self.weight_decay and self.method == "adam":
            raise ValueError("weight_decay goes with adamw, lion, muon or sgd, but method is adam")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate must not exceed learning_rate, but {self.final_learning_rate} > "
                f"{self.learning_rate}"
            )
