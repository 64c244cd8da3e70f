"""metrics.jsonl: one JSON object a line, of which a training step or an evaluation is one.

Every line has the keys of `KEYS`; training lines also have `step_seconds`. A value that is not finite, or that an
evaluation does not measure, is null: the file is strict JSON. Steps and epochs count from 1: `step` is the number of
updates made, `epoch` the one that the last of them belongs to.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from deq_jax.training.files import write_atomically
from deq_jax.training.step import EvalSums, TrainMetrics

MEASURED = (
    "loss",
    "accuracy",
    "forward_iterations",
    "forward_residual",
    "adjoint_iterations",
    "adjoint_residual",
)
KEYS = ("kind", "step", "epoch", *MEASURED, "seconds")

Record = dict[str, Any]


def line(
    kind: Literal["train", "eval"], step: int, epoch: int, measured: Mapping[str, float], **timing: float
) -> Record:
    """One line's object. `timing` is `seconds`, and on training lines `step_seconds`."""
    values = {name: measured.get(name) for name in MEASURED} | timing
    return {"kind": kind, "step": step, "epoch": epoch} | {name: _finite(value) for name, value in values.items()}


def train_means(metrics: TrainMetrics) -> dict[str, float]:
    """What a training step measured, as Python numbers. Waits for the step."""
    return {name: float(getattr(metrics, name)) for name in MEASURED}


def eval_means(sums: list[EvalSums]) -> dict[str, float]:
    """Means over a data set from its batches' sums, added up in float64; `images`, their number, stays a sum."""
    totals = {name: math.fsum(float(getattr(batch, name)) for batch in sums) for name in EvalSums._fields}
    images = totals.pop("images")
    return {"images": images} | {name: total / images for name, total in totals.items()}


def append(path: Path, record: Record) -> None:
    """Adds one line, whole, to the end of the file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read(path: Path) -> list[Record]:
    """The objects of a file, without a last line that a crash has torn; none where there is no file.

    Raises:
        ValueError: a line before the last is not JSON.
    """
    if not path.exists():
        return []
    records, lines = [], path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, text in enumerate(lines, 1):
        try:
            records.append(json.loads(text))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: {error}") from error
    return records


def drop_after(path: Path, step: int) -> list[Record]:
    """Removes the lines of later steps, which a resumed run writes again, and a torn last one. Returns those kept."""
    kept = [record for record in read(path) if record["step"] <= step]
    write_atomically(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in kept))
    return kept


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
