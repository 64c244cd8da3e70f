"""The groups of a run's settings: model, solves, optimiser, and what keeps training in bounds.

The docstring under a field is its help on the command line: `python train.py --help`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from deq_jax.training.checks import require_not_negative, require_positive, require_share

Method = Literal["anderson", "broyden", "forward-iteration"]
AdjointKind = Literal["implicit", "phantom", "jacobian-free"]


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
    cell: Literal["resnet", "pre-activation"] = "resnet"
    """The chapter's residual cell; or one with norm and ReLU before each convolution, and the injection added last."""
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


@dataclass(frozen=True)
class SolverConfig:
    """How the equilibrium z = f(z, x) is found."""

    method: Method = "anderson"
    """Anderson acceleration; Broyden's method, which reads m, too; or plain iteration, which reads tol and max-iter."""
    tol: float = 1e-2
    """Relative residual ‖f(z) − z‖ / ‖f(z)‖ at which a sample is done."""
    max_iter: int = 25
    """Evaluations of f at most."""
    m: int = 5
    """Iterates that Anderson mixes, or steps that Broyden's method learns from."""
    lam: float = 1e-4
    """Regularisation of Anderson's least squares, relative to each column of the differences."""
    beta: float = 1.0
    """Mixing: 1 plain, below 1 damped."""

    def __post_init__(self) -> None:
        """Raises ValueError on a setting that no solve can use."""
        require_positive(self, "tol", "max_iter", "m", "beta")
        require_not_negative(self, "lam")


@dataclass(frozen=True)
class AdjointConfig:
    """How the adjoint equation g = (∂f/∂z)ᵀg + y is met; what is left out is as in the forward solve."""

    kind: AdjointKind = "implicit"
    """Solved; cut off after a few damped iterations (phantom, reads steps and damping); or g = y."""
    steps: int = 5
    """Vector-Jacobian products of a phantom gradient."""
    damping: float = 1.0
    """The share of each of its steps that a phantom gradient takes."""
    method: Method | None = None
    """As solver.method."""
    tol: float | None = None
    """Relative residual of the adjoint equation at which a sample is done."""
    max_iter: int | None = None
    """Vector-Jacobian products at most."""
    m: int | None = None
    """Iterates that Anderson mixes, or steps that Broyden's method learns from."""
    lam: float | None = None
    """Regularisation of Anderson's least squares, relative to each column of the differences."""
    beta: float | None = None
    """Mixing: 1 plain, below 1 damped."""

    def __post_init__(self) -> None:
        """Raises ValueError on a setting that no solve can use."""
        filled_from(self, SolverConfig())
        require_positive(self, "steps", "damping")
        if self.damping > 1:
            raise ValueError(f"damping must not exceed 1, but is {self.damping}")


@dataclass(frozen=True)
class EarlyConfig:
    """What is done otherwise while the network is young: in the first steps of the run."""

    share: float = 0.0
    """The share of all steps that this holds for."""
    adjoint_kind: AdjointKind | None = None
    """As adjoint.kind. None: as in the rest of the run."""
    max_iter: int | None = None
    """Evaluations of f at most. None: as in the rest of the run."""

    def __post_init__(self) -> None:
        """Raises ValueError on a share that is none."""
        require_share(self, "share")
        if self.max_iter is not None:
            require_positive(self, "max_iter")


@dataclass(frozen=True)
class PenaltyConfig:
    """A penalty ‖∂f/∂z‖_F² / (numbers in a state) at the equilibrium, which keeps solves short."""

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


@dataclass(frozen=True)
class EvaluationConfig:
    """How the test split is evaluated; what is left out of a solve's settings is as in training."""

    every: int = 1
    """Epochs from one evaluation to the next; the run also ends with one."""
    flip: bool = False
    """Average the logits of an image and its mirror image."""
    tol: float | None = None
    """Relative residual at which a sample is done."""
    max_iter: int | None = None
    """Evaluations of f at most."""
    radius_images: int = 16
    """Test images whose Jacobian's spectral radius is estimated at their equilibria; 0: none."""

    def __post_init__(self) -> None:
        """Raises ValueError on a setting that no evaluation can use."""
        require_positive(self, "every")
        require_not_negative(self, "radius_images")
        filled_from(self, SolverConfig())


def filled_from(own: AdjointConfig | EvaluationConfig, solver: SolverConfig) -> SolverConfig:
    """The forward solve's settings, with those that are set in a group of its own in their place."""
    names = {field.name for field in dataclasses.fields(SolverConfig)}
    return dataclasses.replace(
        solver, **{name: value for name, value in vars(own).items() if name in names and value is not None}
    )
