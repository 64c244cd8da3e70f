"""What is said at the end of a run: what it has reached, its best, where it is, and what can be done with it."""

from collections.abc import Sequence
from pathlib import Path

from deq_jax.training.disk import checkpoints, metrics
from deq_jax.training.disk.best import best_step, results
from deq_jax.training.task import Result, Task


def reached(out: Path, task: Task) -> str:
    """The result of the last evaluation, or else of the last step."""
    records = metrics.read(out / "metrics.jsonl")
    kind = "eval" if any(record["kind"] == "eval" for record in records) else "train"
    last = next((record for record in reversed(records) if record["kind"] == kind), None)
    if last is None:
        return "its account is lost"
    name, where = task.result.name, "test" if kind == "eval" else "training"
    return (
        f"{where} {name} {_said(last.get(name), task.result)} after step {last['step']:,} and {last['seconds']:.0f} s"
    )


def summary(out: Path, task: Task, next_steps: Sequence[str]) -> str:
    """A finished run in a few lines."""
    lines = [f"Finished: {reached(out, task)}. See {out / 'curves.png'}"]
    measured = results(metrics.read(out / "metrics.jsonl"), task.result)
    best = best_step(measured, task.result, checkpoints.steps_of(out))
    if best is not None:
        value = _said(measured[best], task.result)
        lines.append(
            f"Best: test {task.result.name} {value} after step {best:,}, in {checkpoints.folder_of(out, best)}"
        )
    lines += [f"{'Next:' if k == 0 else '':5} {command}" for k, command in enumerate(next_steps)]
    return "\n".join(lines)


def _said(value: float | None, result: Result) -> str:
    return "unknown" if value is None else metrics.said(value, result.unit)
