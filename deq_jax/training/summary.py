"""What is said at the end of a run: what it has reached, its best, where it is, and what can be done with it."""

from collections.abc import Sequence
from pathlib import Path

from deq_jax.training.disk import checkpoints, metrics
from deq_jax.training.disk.best import best_step, results
from deq_jax.training.health import Watch, advice
from deq_jax.training.settings.settings import Settings
from deq_jax.training.task import Result, Task

_SPLITS = {"eval": "test", "validation": "validation", "train": "training"}
"""What the lines tell of, that which counts most first."""


def reached(out: Path, task: Task) -> str:
    """The result of the last evaluation, or else of the last step."""
    records = metrics.read(out / "metrics.jsonl")
    kinds = {record["kind"] for record in records}
    kind = next((kind for kind in _SPLITS if kind in kinds), None)
    if kind is None:
        return "its account is lost"
    last = next(record for record in reversed(records) if record["kind"] == kind)
    name = task.result.name
    said = f"{_SPLITS[kind]} {name} {_said(last.get(name), task.result)}"
    return f"{said} after step {last['step']:,} and {last['seconds']:.0f} s"


def summary(out: Path, task: Task, settings: Settings, next_steps: Sequence[str]) -> str:
    """A finished run in a few lines."""
    lines = [f"Finished: {reached(out, task)}. See {out / 'curves.png'}"]
    records = metrics.read(out / "metrics.jsonl")
    measured = results(records, task.result)
    best = best_step(measured, task.result, checkpoints.steps_of(out))
    if best is not None:
        split = "validation" if any(record["kind"] == "validation" for record in records) else "test"
        value = _said(measured[best], task.result)
        lines.append(
            f"Best: {split} {task.result.name} {value} after step {best:,}, in {checkpoints.folder_of(out, best)}"
        )
    skipped = sum(1 for record in records if record.get("skipped"))
    if skipped:
        lines.append(f"Skipped: {skipped:,} steps, whose loss or gradient was not finite")
    ailment = Watch(records, lambda text: None, settings).ailment()
    if ailment is not None:
        lines.append(f"Warning: {ailment}. {advice(settings)}")
    lines += [f"{'Next:' if k == 0 else '':5} {command}" for k, command in enumerate(next_steps)]
    return "\n".join(lines)


def _said(value: float | None, result: Result) -> str:
    return "unknown" if value is None else metrics.said(value, result.unit)
