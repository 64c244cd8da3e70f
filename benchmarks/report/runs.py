"""What a finished run's own files tell of it."""

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.task import OPENER
from deq_jax.training.disk import metrics
from deq_jax.training.disk.folder import read_config, require_task
from deq_jax.training.errors import UserError
from deq_jax.training.settings.record import MAY_DIFFER, flatten, to_dict

SHARE = 0.1
"""Early and late are the first and the last tenth of a run's steps."""


class Run(NamedTuple):
    """One finished run, as its folder tells of it."""

    folder: Path
    config: Config
    environment: dict[str, Any]
    train: list[metrics.Record]
    evals: list[metrics.Record]
    evaluations: list[dict[str, Any]]

    @property
    def accuracy(self) -> float:
        """Accuracy on the test split after the last step, as a share."""
        return self.evals[-1]["accuracy"]

    @property
    def starts(self) -> list[dict[str, Any]]:
        """What the run was started on, and what it was resumed on."""
        return [self.environment, *self.environment["resumed"]]

    @property
    def test_evaluations(self) -> list[dict[str, Any]]:
        """Further evaluations of the finished run on the test split."""
        last = self.evals[-1]["step"]
        return [line for line in self.evaluations if line["split"] == "test" and line["step"] == last]

    @property
    def minutes(self) -> float:
        """Minutes that the training steps took, without compilation, evaluations and checkpoints."""
        return minutes_of(self.train)

    def minutes_until(self, step: int) -> float:
        """Of these, those that had passed after a step."""
        return minutes_of(record for record in self.train if record["step"] <= step)

    def mean(self, name: str, *, is_late: bool) -> float | None:
        """Mean of a measured quantity over the first or the last steps; None where it was not measured."""
        count = max(1, round(SHARE * len(self.train)))
        return mean_of(self.train[-count:] if is_late else self.train[:count], name)


def minutes_of(train: Iterable[metrics.Record]) -> float:
    """What these steps took, without compilation, evaluations and checkpoints."""
    return sum(record["step_seconds"] for record in train) / 60


def mean_of(train: Iterable[metrics.Record], name: str) -> float | None:
    """Mean of a measured quantity over these steps; None where it was not measured."""
    values = [record[name] for record in train if record.get(name) is not None]
    return statistics.fmean(values) if values else None


def read_run(folder: Path) -> Run | None:
    """The run in a folder; None where it has not been trained to its end, or has not recorded what it ran on."""
    require_task(folder, OPENER, "the report is on those")
    config = read_config(folder, Config)
    records = metrics.read(folder / "metrics.jsonl")
    train = [record for record in records if record["kind"] == "train"]
    evals = [record for record in records if record["kind"] == "eval"]
    path, more = folder / "environment.json", folder / "evaluations.jsonl"
    if not (train and evals and path.exists()) or evals[-1]["accuracy"] is None or evals[-1]["loss"] is None:
        return None
    environment = json.loads(path.read_text(encoding="utf-8"))
    steps = config.epochs * (environment["data"]["training_images"] // config.batch_size)
    if evals[-1]["step"] < steps:
        return None
    if [record["step"] for record in train] != list(range(1, steps + 1)):
        raise ValueError(f"metrics.jsonl has not every one of its {steps:,} steps")
    lines = more.read_text(encoding="utf-8").splitlines() if more.exists() else []
    return Run(folder, config, environment, train, evals, [json.loads(line) for line in lines if line.strip()])


def finished(folders: Iterable[Path]) -> list[Run]:
    """The finished runs among these folders; one that cannot be read is left out with a line on stderr."""
    runs = []
    for folder in folders:
        try:
            run = read_run(folder)
        except (UserError, ValueError, KeyError) as error:
            print(f"warning: {folder} is left out, since it cannot be read: {error}", file=sys.stderr)
            continue
        runs += [run] if run is not None else []
    return runs


def grouped(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs on the same data that differ in the seed alone, side by side; groups by falling mean accuracy.

    Of two runs of one seed the second is left out with a line on stderr: it is no further evidence.
    """
    groups: dict[str, dict[int, Run]] = {}
    for run in sorted(runs, key=lambda run: (run.config.seed, run.folder)):
        settings = {name: value for name, value in flatten(to_dict(run.config)).items() if name not in MAY_DIFFER}
        key = json.dumps([settings | {"seed": None}, run.environment["data"]], sort_keys=True)
        group = groups.setdefault(key, {})
        known = group.setdefault(run.config.seed, run)
        if known is not run:
            print(f"warning: {run.folder} is left out, since {known.folder} is the same run.", file=sys.stderr)
    rows = [list(group.values()) for group in groups.values()]
    return sorted(rows, key=lambda runs: -statistics.fmean(run.accuracy for run in runs))
