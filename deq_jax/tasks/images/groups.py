"""The groups of a run's settings that are about the network and its training; those of solves are in `solves`.

The docstring under a field is its help on the command line: `python train.py --help`.
"""

from dataclasses import dataclass
from typing import Literal

from deq_jax.training.settings.checks import require_not_negative, require_positive, require_share


@dataclass(frozen=True)
class ModelConfig:
    """The classifier: a stem, one equilibrium of a cell or ordinary layers in its place, pooling, a linear head."""

    kind: Literal["chapter", "deq", "explicit"] = "chapter"
    """The chapter's; one with a stem before the equilibrium; or its explicit counterpart, of ordinary layers."""
    channels: int = 48
    """Channels of the equilibrium state z, and of the ordinary layers."""
    inner_channels: int = 64
    """Channels between the cell's two convolutions."""
    num_groups: int = 8
    """Groups of the cell's group normalisations; divides both channel counts."""
    kernel_size: int = 3
    """Side of every convolution's kernel, in pixels; odd."""
    pool: int | None = 8
    """Side of the average-pooling window before the head, in pixels; divides the state's side. None: the whole."""
    cell: Literal["resnet", "pre-activation", "injection"] = "resnet"
    """The chapter's residual cell; one with norm and ReLU before each convolution, and the injection added last; or
    that with weights for the injection alone, outside the solve."""
    max_gain: float | None = None
    """Bound of each output channel's kernel norm in the cell; None: plain kernels."""
    stem: tuple[int, ...] = ()
    """Channels of the stem's layers (convolution, norm, ReLU) before the convolution that makes the injection."""
    stem_factors: tuple[int, ...] = ()
    """By how much each of the stem's layers makes the image smaller."""
    downsampling: Literal["average", "max", "stride"] = "average"
    """How the stem makes images smaller."""
    layers: int = 2
    """Ordinary layers of the explicit counterpart."""

    def __post_init__(self) -> None:
        """Raises ValueError on a setting that no model can have."""
        require_positive(self, "channels", "inner_channels", "num_groups", "kernel_size", "layers")
        for name in ("pool", "max_gain"):
            if getattr(self, name) is not None:
                require_positive(self, name)
        for name in ("channels", "inner_channels"):
            if getattr(self, name) % self.num_groups:
                raise ValueError(
                    f"num_groups must divide {name}, but {getattr(self, name)} / {self.num_groups} leaves a remainder"
                )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, but is {self.kernel_size}")
        if len(self.stem) != len(self.stem_factors):
            raise ValueError(
                f"stem_factors must be as many as stem, but there are {len(self.stem_factors)} for {len(self.stem)}"
            )
        if min((*self.stem, *self.stem_factors), default=1) < 1:
            raise ValueError("stem and stem_factors must be positive")
        if self.kind == "chapter" and (self.stem or self.cell != "resnet" or self.max_gain or self.pool is None):
            raise ValueError("kind chapter has no stem, cell or max_gain to choose, and a pool; choose kind deq")
        if self.kind == "explicit" and self.cell == "injection":
            raise ValueError("kind explicit has layers without an injection; choose cell pre-activation or resnet")
        if self.downsampling != "average" and not self.stem:
            raise ValueError(f"downsampling is {self.downsampling}, but there is no stem to make images smaller")


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
    schedule: Literal["cosine", "onecycle"] = "cosine"
    """A half cosine from the first step on; or a linear rise before it."""
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


@dataclass(frozen=True)
class AugmentationConfig:
    """What is done to the images of a training step, at random, each image on its own."""

    flip: bool = False
    """Mirror one image in two, left to right."""
    shift: int = 0
    """Move by up to this many pixels along each side."""
    padding: Literal["reflect", "zero"] = "reflect"
    """What moves in from beyond the edge."""

    def __post_init__(self) -> None:
        """Raises ValueError on a shift that is none."""
        require_not_negative(self, "shift")
