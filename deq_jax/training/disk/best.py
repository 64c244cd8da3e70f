"""The best checkpoint: of the evaluations whose checkpoints are there, that with the best result."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from deq_jax.training.disk import checkpoints, metrics
from deq_jax.training.errors import UserError
from deq_jax.training.task import Result

Choice = Literal["last", "best"] | int
"""A checkpoint: the latest readable one, the best one, or that of a step."""


def results(records: Iterable[metrics.Record], result: Result) -> dict[int, float]:
    """The results of a run's evaluations, by their steps; those that are not finite are left out.

    They are those on the validation split where the run has one, else those on the test split.
    """
    records = list(records)
    kind = "validation" if any(record["kind"] == "validation" for record in records) else "eval"
    evals = (record for record in records if record["kind"] == kind)
    return {record["step"]: record[result.name] for record in evals if record.get(result.name) is not None}


def best_step(measured: Mapping[int, float], result: Result, steps: Iterable[int]) -> int | None:
    """The one of these steps with the best result, of equals the latest; None where none of them was evaluated."""
    sign = 1 if result.is_best_at_its_largest else -1
    return max(
        (step for step in steps if step in measured), key=lambda step: (sign * measured[step], step), default=None
    )


def is_stalled(measured: Mapping[int, float], result: Result, patience: int | None) -> bool:
    """Whether so many of the last evaluations have brought no better result than one before them."""
    values = [measured[step] for step in sorted(measured)]
    if patience is None or len(values) <= patience:
        return False
    best = max if result.is_best_at_its_largest else min
    before, last = best(values[:-patience]), best(values[-patience:])
    return best(before, last) == before


def chosen(run: Path, choice: str | int, result: Result) -> int | None:
    """The step that a choice, in Python or on a command line, comes to; None where it is the latest readable one.

    Raises:
        UserError: it is no choice, or there is no such checkpoint; says which there are.
    """
    if choice == "last":
        return None
    if choice == "best":
        return _best(run, result)
    steps = checkpoints.steps_of(run)
    if not str(choice).isdecimal():
        raise UserError(f"the checkpoint is {choice!r}; expected best, last, or a step. {_there(steps)}")
    if int(choice) not in steps:
        raise UserError(f"{run} has no checkpoint of step {choice}. {_there(steps)}")
    return int(choice)


def _best(run: Path, result: Result) -> int | None:
    steps = checkpoints.steps_of(run)
    if not steps:
        return None  # as without a choice: nothing is there to be read
    step = best_step(results(metrics.read(run / "metrics.jsonl"), result), result, steps)
    if step is None:
        raise UserError(f"{run} has no evaluation that tells its best checkpoint. {_there(steps)} Choose one, or last.")
    return step


def _there(steps: Iterable[int]) -> str:
    listed = ", ".join(str(step) for step in steps)
    return f"There are: {listed}." if listed else "There is none yet."
