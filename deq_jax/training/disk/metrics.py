"""metrics.jsonl: one JSON object a line, of which a training step or an evaluation is one.

Every line has the keys of `KEYS`, and after `loss` those of the task's own metrics; training lines also have
`step_seconds`. `loss` is without the penalty. The shares of samples whose solves reached their tolerance follow, of
those solves that there were. Steps with a penalty add its value, unweighted; evaluations add the mean and the largest
spectral radius of ∂f/∂z over some samples. A value that is not finite, or of `KEYS` one that an evaluation does not
measure, is null: the file is strict JSON. Steps and epochs count from 1: `step` is the number of updates made,
`epoch` the one that the last of them belongs to.
"""

import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from deq_jax.training.disk.files import set_aside, write_atomically, writing_to
from deq_jax.training.errors import UserError
from deq_jax.training.steps.step import TrainMetrics

SOLVES = ("forward_iterations", "forward_residual", "adjoint_iterations", "adjoint_residual")
KEYS = ("kind", "step", "epoch", "loss", *SOLVES, "seconds")
SHARES = ("forward_converged", "adjoint_converged")
STABILITY = ("penalty", "spectral_radius", "spectral_radius_max")

Record = dict[str, Any]


def line(
    kind: Literal["train", "eval"],
    step: int,
    epoch: int,
    measured: Mapping[str, float],
    own: Iterable[str] = (),
    **timing: float,
) -> Record:
    """One line's object. `own` are the task's metrics; `timing` is `seconds`, and on training lines `step_seconds`."""
    more = {name: measured[name] for name in SHARES if math.isfinite(measured.get(name, math.inf))}
    more |= {name: measured[name] for name in STABILITY if name in measured}
    values = {name: measured.get(name) for name in ("loss", *own, *SOLVES)} | timing | more
    return {"kind": kind, "step": step, "epoch": epoch} | {name: _finite(value) for name, value in values.items()}


def said(value: float, unit: str, places: int = 2) -> str:
    """A metric in words: a share, whose unit is %, in percent to so many places."""
    return f"{value:.{places}%}" if unit == "%" else f"{value:.{places + 1}f}{unit}"


def train_means(metrics: TrainMetrics) -> dict[str, float]:
    """What a training step measured, as Python numbers. Waits for the step."""
    values = {"loss": metrics.loss, **metrics.metrics}
    values |= {name: getattr(metrics, name) for name in (*SOLVES, *SHARES, "penalty")}
    return {name: float(value) for name, value in values.items() if value is not None}


def append(path: Path, record: Record) -> None:
    """Adds one line, whole, to the end of the file."""
    with writing_to(path.parent), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read(path: Path) -> list[Record]:
    """The objects of a file, without a last line that a crash has torn; none where there is no file.

    Raises:
        UserError: a line before the last is damaged.
    """
    if not path.exists():
        return []
    records, lines = [], path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, text in enumerate(lines, 1):
        record = _parsed(text)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise UserError(f"{path}, line {number}, is damaged.\nRemove that line; checkpoints are untouched.")
    return records


def drop_after(path: Path, step: int) -> None:
    """Removes the lines of later steps, which a resumed run writes again, and a torn last one.

    A run that starts anew from step 0 would keep none, so the file is renamed to metrics-0.jsonl instead, and a line on
    stderr says so.
    """
    records = read(path)
    kept = [record for record in records if record["step"] <= step]
    with writing_to(path.parent):
        if records and not step:
            aside = set_aside(path, f"{path.stem}-{{}}{path.suffix}")
            print(
                f"warning: {path.parent} holds no checkpoint; starting anew, the former metrics are in {aside.name}.",
                file=sys.stderr,
            )
        write_atomically(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in kept))


def _parsed(text: str) -> Record | None:
    """The record of a line; None where it is damaged."""
    try:
        record = json.loads(text)
    except ValueError:
        return None
    is_whole = (
        isinstance(record, dict)
        and record.keys() >= set(KEYS)
        and isinstance(record["step"], int)
        and isinstance(record["seconds"], int | float)
    )
    return record if is_whole else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
