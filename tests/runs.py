"""Training runs small enough for tests: a few seconds, compilation included."""

import dataclasses
import json
from pathlib import Path

from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.groups import DataConfig, EvaluationConfig, ModelConfig
from deq_jax.training.disk import metrics
from deq_jax.training.settings.solves import SolverConfig

# What tiny(out) is on the command line, after the preset's name.
TINY_FIELDS = [
    "--epochs",
    "1",
    "--batch-size",
    "180",
    "--model.channels",
    "8",
    "--model.inner-channels",
    "8",
    "--model.num-groups",
    "2",
    "--model.pool",
    "4",
    "--solver.max-iter",
    "6",
    "--solver.m",
    "3",
    # The tests train by Adam alone, which compiles in less time than what the preset has.
    "--average-decay",
    "None",
    "--label-smoothing",
    "0",
    "--penalty.kind",
    "jacobian",
    "--penalty.weight",
    "0",
    "--penalty.share",
    "1",
    "--optimizer.method",
    "adam",
    "--optimizer.schedule",
    "cosine",
    "--optimizer.learning-rate",
    "1e-3",
    "--optimizer.final-learning-rate",
    "1e-6",
    "--augmentation.shift",
    "0",
    "--augmentation.padding",
    "reflect",
    # Looking at how contractive the cell is would be a third program to compile.
    "--evaluation.radius-images",
    "0",
]


def tiny(out: Path, **changes) -> Config:
    """One epoch of seven steps on the digits, 1,642 parameters, 6 evaluations a solve at most."""
    config = Config(
        data=DataConfig("digits"),
        out=out,
        epochs=1,
        batch_size=180,
        model=ModelConfig(channels=8, inner_channels=8, num_groups=2, pool=4),
        solver=SolverConfig(max_iter=6, m=3),
        evaluation=EvaluationConfig(radius_images=0),
    )
    return dataclasses.replace(config, **changes)


def records(run: Path) -> list[dict]:
    """The lines of a run's metrics.jsonl but their checksums, read as strictly as any other JSON reader would."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    lines = (run / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line, parse_constant=refuse) for line in lines]
    return [{name: value for name, value in line.items() if name != metrics.CHECKSUM} for line in found]


def without_times(records: list[dict]) -> list[dict]:
    """Lines as far as they are the same in every repeat."""
    timed = ("seconds", "step_seconds")
    return [{name: value for name, value in record.items() if name not in timed} for record in records]
