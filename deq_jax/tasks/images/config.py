"""Every setting of a run that learns to classify images.

The docstring under a field is its help on the command line: `python train.py --help`.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deq_jax.tasks.images.groups import AugmentationConfig, DataConfig, EvaluationConfig, ModelConfig
from deq_jax.training.settings.beginning import InitialConfig, ValidationConfig
from deq_jax.training.settings.precision import Precision
from deq_jax.training.settings.settings import Settings
from deq_jax.training.settings.solves import AdjointConfig, EarlyConfig, SolverConfig
from deq_jax.training.settings.update import OptimizerConfig, PenaltyConfig


@dataclass(frozen=True)
class Config:
    """A training run: what to train, on what, for how long, and where to keep it."""

    data: DataConfig
    out: Path
    """Folder of the run. Starting the same command again continues it."""
    data_dir: Path | None = None
    """Folder of prepared TFDS data sets, the one that holds cifar10/; None: TFDS's own default. A source folder:DIR or
    npz:FILE is looked for in it; None: in the current folder."""
    seed: int = 0
    """Settles the initial weights and the order of the images; below 2**32."""
    epochs: int = 50
    """Passes over the training split; the rate's schedule spans them."""
    max_steps: int | None = None
    """Stop after this many steps in all, with a checkpoint and an evaluation; the schedule stays that of all epochs."""
    batch_size: int = 100
    """Images a step. An epoch's incomplete last batch is left out."""
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
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes in training."""
    checkpoint_dir: str | None = None
    """Another folder for the checkpoints, empty at first: absolute, or a URL such as gs://bucket/run. None: the run's
    own."""
    average_decay: float | None = None
    """Evaluate the moving average of weights, of which this share is kept every step. None: the weights themselves."""
    model: ModelConfig = field(default_factory=ModelConfig)
    initial: InitialConfig = field(default_factory=InitialConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    adjoint: AdjointConfig = field(default_factory=AdjointConfig)
    early: EarlyConfig = field(default_factory=EarlyConfig)
    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        """Raises ValueError on a run that cannot be."""
        settings_of(self)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be a share from 0 to below 1, but is {self.label_smoothing}")
        if self.model.kind in ("explicit", "tied"):
            for name, is_set in (("penalty.weight", self.penalty.weight), ("early.share", self.early.share)):
                if is_set:
                    raise ValueError(f"{name} needs an equilibrium, but model.kind is {self.model.kind}")
        is_certain = self.model.is_monotone and self.model.kind == "deq"
        if self.evaluation.epsilon is not None and not is_certain:
            raise ValueError(
                "evaluation.epsilon is for model.kind deq and a monotone cell, of which something is certain"
            )
        methods = {self.solver.method, self.adjoint.method} & {"peaceman-rachford", "forward-backward"}
        if methods and not self.model.is_monotone:
            raise ValueError(f"the method {methods.pop()} is for monotone cells, but model.cell is {self.model.cell}")

    @property
    def dataset(self) -> str:
        """What the images are called."""
        return self.data.source or "images"

    @classmethod
    def upgraded(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The configuration of a run of an older version, which had its source as `dataset`, in today's form."""
        values = dict(values)
        if "dataset" in values:
            values["data"] = {"source": values.pop("dataset"), **values.get("data", {})}
        return values


def settings_of(config: Config) -> Settings:
    """What a run, which knows no images, sees of the configuration.

    Raises:
        ValueError: a run cannot be so.
    """
    shared = {name: getattr(config, name) for name in Settings.names() if name != "evaluation"}
    return Settings(**shared, evaluation=config.evaluation.of_any_task())


def located(config: Config) -> Config:
    """The configuration with its data_dir absolute, to be found from any other folder."""
    kind, place = config.data.kind_and_place
    is_relative = kind in ("folder", "npz") and not Path(place).expanduser().is_absolute()
    if config.data_dir is None and not is_relative:
        return config
    return dataclasses.replace(config, data_dir=(config.data_dir or Path()).absolute())
