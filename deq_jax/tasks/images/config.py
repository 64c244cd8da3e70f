"""Every setting of a training run.

The docstring under a field is its help on the command line: `python train.py --help`.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deq_jax.tasks.images.groups import AugmentationConfig, ModelConfig, OptimizerConfig, PenaltyConfig
from deq_jax.training.errors import UserError
from deq_jax.training.settings.checks import require_not_negative, require_positive
from deq_jax.training.settings.solves import AdjointConfig, EarlyConfig, EvaluationConfig, SolverConfig


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
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes in training."""
    average_decay: float | None = None
    """Evaluate the moving average of weights, of which this share is kept every step. None: the weights themselves."""
    model: ModelConfig = field(default_factory=ModelConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    adjoint: AdjointConfig = field(default_factory=AdjointConfig)
    early: EarlyConfig = field(default_factory=EarlyConfig)
    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        """Raises ValueError on a run that cannot be."""
        require_positive(self, "epochs", "batch_size", "checkpoint_minutes")
        require_not_negative(self, "seed")
        if self.seed >= 2**32:  # JAX would take it modulo 2**32, and so draw another seed's weights
            raise ValueError(f"seed must be below 2**32, but is {self.seed}")
        if self.max_steps is not None:
            require_positive(self, "max_steps")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be a share from 0 to below 1, but is {self.label_smoothing}")
        if self.average_decay is not None and not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay must be from 0 to below 1, but is {self.average_decay}")
        if self.penalty.weight and self.model.kind == "explicit":
            raise ValueError("penalty.weight needs an equilibrium, but model.kind is explicit")
        if self.early.share and self.model.kind == "explicit":
            raise ValueError("early.share needs an equilibrium, but model.kind is explicit")


GROUPS: dict[str, type] = {
    "model": ModelConfig,
    "solver": SolverConfig,
    "adjoint": AdjointConfig,
    "early": EarlyConfig,
    "penalty": PenaltyConfig,
    "optimizer": OptimizerConfig,
    "augmentation": AugmentationConfig,
    "evaluation": EvaluationConfig,
}

# These say how long and where, not what: a run may be continued with others.
MAY_DIFFER = frozenset({"max_steps", "data_dir", "out", "checkpoint_minutes"})


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain JSON values, groups nested."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def from_dict(values: dict[str, Any]) -> Config:
    """Inverse of `to_dict`. A field that is missing takes its default.

    Raises:
        UserError: says in a few words what is wrong: a field that does not exist, or a value that it cannot take.
    """
    unknown = flatten(values).keys() - flatten(to_dict(Config("digits", Path()))).keys()
    if unknown:
        raise UserError(f"unknown {', '.join(sorted(unknown))}")
    missing = [name for name in ("dataset", "out") if name not in values]
    if missing:
        raise UserError(f"{' and '.join(missing)} missing")
    try:
        fields = {name: _group(name, value) if name in GROUPS else value for name, value in values.items()}
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


def _group(name: str, values: dict[str, Any]) -> Any:
    # JSON knows lists only.
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return GROUPS[name](**fields)
