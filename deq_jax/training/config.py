"""Every setting of a training run, and the presets.

The docstring under a field is its help on the command line: `python train.py --help`.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deq_jax.training.errors import UserError

Method = Literal["anderson", "broyden", "forward-iteration"]


@dataclass(frozen=True)
class ModelConfig:
    """The classifier: a stem convolution, one equilibrium of a ResNet cell, pooling, a linear head."""

    channels: int = 48
    """Channels of the equilibrium state z."""
    inner_channels: int = 64
    """Channels between the cell's two convolutions."""
    num_groups: int = 8
    """Groups of the cell's group normalisations; divides both channel counts."""
    kernel_size: int = 3
    """Side of every convolution's kernel, in pixels; odd."""
    pool: int = 8
    """Side of the average-pooling window before the head, in pixels; divides the image's side."""

    def __post_init__(self) -> None:
        """Raises ValueError on a setting that no model can have."""
        _require_positive(self, "channels", "inner_channels", "num_groups", "kernel_size", "pool")
        for name in ("channels", "inner_channels"):
            if getattr(self, name) % self.num_groups:
                raise ValueError(
                    f"num_groups must divide {name}, but {getattr(self, name)} / {self.num_groups} leaves a remainder"
                )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, but is {self.kernel_size}")


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
        _require_positive(self, "tol", "max_iter", "m", "beta")
        _require_not_negative(self, "lam")


@dataclass(frozen=True)
class AdjointConfig:
    """How the adjoint equation g = (∂f/∂z)ᵀg + y is solved; what is left out is as in the forward solve."""

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
        self.filled_from(SolverConfig())

    def filled_from(self, solver: SolverConfig) -> SolverConfig:
        """The forward solve's settings, with those that are set here in their place."""
        own = {name: value for name, value in vars(self).items() if value is not None}
        return dataclasses.replace(solver, **own)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, its rate following a half cosine over the whole run, one step of it every batch."""

    learning_rate: float = 1e-3
    """Rate of the first step."""
    final_learning_rate: float = 1e-6
    """Rate that the cosine ends at after the last epoch."""

    def __post_init__(self) -> None:
        """Raises ValueError on a rate that does not train."""
        _require_positive(self, "learning_rate")
        _require_not_negative(self, "final_learning_rate")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate must not exceed learning_rate, but {self.final_learning_rate} > "
                f"{self.learning_rate}"
            )


@dataclass(frozen=True)
class Config:
    """A training run: what to train, on what, for how long, and where to keep it."""

    dataset: Literal["digits", "cifar10"]
    """digits ships with scikit-learn; cifar10 comes through tensorflow-datasets."""
    out: Path
    """Folder of the run. Starting the same command again continues it."""
    data_dir: Path | None = None
    """Folder of prepared TFDS data sets, the one that holds cifar10/. None: TFDS's own default."""
    seed: int = 0
    """Settles the initial weights and the order of the images; below 2**32."""
    epochs: int = 50
    """Passes over the training split; the rate's schedule spans them."""
    max_steps: int | None = None
    """Stop after this many steps in all, with a checkpoint and an evaluation; the schedule stays that of all epochs."""
    batch_size: int = 100
    """Images a step. An epoch's incomplete last batch is left out."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints within an epoch; every epoch and the run also end with one."""
    model: ModelConfig = field(default_factory=ModelConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    adjoint: AdjointConfig = field(default_factory=AdjointConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        """Raises ValueError on a run that cannot be."""
        _require_positive(self, "epochs", "batch_size", "checkpoint_minutes")
        _require_not_negative(self, "seed")
        if self.seed >= 2**32:  # JAX would take it modulo 2**32, and so draw another seed's weights
            raise ValueError(f"seed must be below 2**32, but is {self.seed}")
        if self.max_steps is not None:
            _require_positive(self, "max_steps")


# These say how long and where, not what: a run may be continued with others.
MAY_DIFFER = frozenset({"max_steps", "data_dir", "out", "checkpoint_minutes"})


def digits() -> Config:
    """The 1,797 scanned digits of scikit-learn, 8×8 pixels: no download.

    python train.py digits
    Expect 98.9% on the 360 images of the test split (seed 0) after a minute and a half on two CPU cores.
    """
    return Config(
        dataset="digits",
        out=Path("runs/digits"),
        epochs=12,
        batch_size=64,
        model=ModelConfig(pool=4),
        solver=SolverConfig(max_iter=40),
    )


def cifar10_tutorial() -> Config:
    """The chapter's run exactly: 64,842 parameters, no augmentation, Adam and a cosine over 50 epochs of batch 100.

    python train.py cifar10-tutorial
    The chapter reports 81.6% on the test split after a few hours on one GPU; that has not been repeated. The first 30
    steps were: 3 to 6 s each on two CPU cores.
    """
    return Config(dataset="cifar10", out=Path("runs/cifar10-tutorial"))


PRESETS = {"digits": digits, "cifar10-tutorial": cifar10_tutorial}


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain JSON values, groups nested."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def from_dict(values: dict[str, Any]) -> Config:
    """Inverse of `to_dict`. A field that is missing takes its default.

    Raises:
        UserError: says in a few words what is wrong: a field that does not exist, or a value that it cannot take.
    """
    groups = {"model": ModelConfig, "solver": SolverConfig, "adjoint": AdjointConfig, "optimizer": OptimizerConfig}
    unknown = flatten(values).keys() - flatten(to_dict(Config("digits", Path()))).keys()
    if unknown:
        raise UserError(f"unknown {', '.join(sorted(unknown))}")
    missing = [name for name in ("dataset", "out") if name not in values]
    if missing:
        raise UserError(f"{' and '.join(missing)} missing")
    try:
        fields = {name: groups[name](**value) if name in groups else value for name, value in values.items()}
        fields["out"] = Path(fields["out"])
        if fields.get("data_dir") is not None:
            fields["data_dir"] = Path(fields["data_dir"])
        return Config(**fields)
    except TypeError as error:
        raise UserError("a value of the wrong type") from error
    except ValueError as error:
        raise UserError(str(error)) from error


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under the names that the command line gives them: {"solver.tol": 0.01, ...}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def differences(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """The settings that make two runs different ones, with both values."""
    ours, theirs = flatten(to_dict(one)), flatten(to_dict(other))
    return {name: (ours[name], theirs[name]) for name in ours if name not in MAY_DIFFER and ours[name] != theirs[name]}


def _require_positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, but is {value}")


def _require_not_negative(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must not be negative, but is {value}")
