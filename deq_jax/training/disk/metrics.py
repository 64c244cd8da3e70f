"""metrics.jsonl: one JSON object a line, of which a training step or an evaluation is one.

Every line has the keys of `KEYS`, and after `loss` those of the task's own metrics; training lines also have
`step_seconds`. `loss` is without the penalty. The shares of samples whose solves reached their tolerance follow, of
those solves that there were. Steps with a penalty add its value, unweighted; evaluations add the mean and the largest
spectral radius of ∂f/∂z over some samples. A value that is not finite, or of `KEYS` one that an evaluation does not
measure, is null: the file is strict JSON. Steps and epochs count from 1: `step` is the number of updates made,
`epoch` the one that the last of them belongs to. `crc32`, last in a line of the file, is the checksum of the rest, by
which a digit that has changed on the disk is known; records that are read do not have it.
"""

import json
import math
import sys
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from deq_jax.training.disk.files import set_aside, write_atomically, writing_to
from deq_jax.training.steps.step import TrainMetrics

KINDS = ("train", "eval", "validation")
KIND_OF: dict[str, Literal["eval", "validation"]] = {"test": "eval", "validation": "validation"}
"""The lines of evaluations, by the split that they are on."""
SOLVES = ("forward_iterations", "forward_residual", "adjoint_iterations", "adjoint_residual")
KEYS = ("kind", "step", "epoch", "loss", *SOLVES, "seconds")
SHARES = ("forward_converged", "adjoint_converged")
STABILITY = ("penalty", "spectral_radius", "spectral_radius_max")

CHECKSUM = "crc32"

Record = dict[str, Any]
_HUGE = 1e300
"""No step, time or measurement is as large."""


def line(
    kind: Literal["train", "eval", "validation"],
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
        file.write(_written(record))


def read(path: Path) -> list[Record]:
    """The objects of a file; none where there is no file.

    A last line that a crash has torn is left out. So are, with a line on stderr, damaged ones before it, and all but
    the last of several lines that tell of one step.
    """
    records, faults = _read(path)
    for what, numbers in faults.items():
        many = f" and {len(numbers) - 3:,} more" if len(numbers) > 3 else ""
        print(
            f"warning: {path} has {what}, left out here: {', '.join(map(str, numbers[:3]))}{many}; "
            f"checkpoints are untouched.",
            file=sys.stderr,
        )
    return records


def drop_after(path: Path, step: int) -> None:
    """Removes the lines of later steps, which a resumed run writes again, and a torn last one.

    A run that starts anew from step 0 would keep none, so the file is renamed to metrics-0.jsonl instead, and a line on
    stderr says so. So is one that is damaged, after which its sound lines go on under the name that it had.
    """
    records, faults = _read(path)
    kept = [record for record in records if record["step"] <= step]
    with writing_to(path.parent):
        if faults or (records and not step):
            aside = set_aside(path, f"{path.stem}-{{}}{path.suffix}")
            why = "is damaged" if faults else "holds no checkpoint; starting anew"
            print(
                f"warning: {path if faults else path.parent} {why}, the former metrics are in {aside.name}.",
                file=sys.stderr,
            )
        write_atomically(path, "".join(map(_written, kept)))


def _read(path: Path) -> tuple[list[Record], dict[str, list[int]]]:
    """The records, and by what is wrong with them the numbers of those lines that are left out."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    records: dict[tuple[str, int], Record] = {}
    damaged, repeated = [], []
    places: dict[tuple[str, int], int] = {}
    for number, text in enumerate(lines, 1):
        record = _parsed(text)
        if record is None:
            damaged += [number] if text and number < len(lines) else []
            continue
        key = record["kind"], record["step"]
        if records.pop(key, None) is not None:
            repeated.append(places[key])
        records[key], places[key] = record, number
    faults = {"damaged lines": damaged, "lines of steps that later ones tell of again": repeated}
    return list(records.values()), {what: numbers for what, numbers in faults.items() if numbers}


def _written(record: Record) -> str:
    return json.dumps(record | {CHECKSUM: _checksum(record)}, allow_nan=False) + "\n"


def _checksum(record: Record) -> str:
    """Of the values rather than of the text, which other programs may have formatted again."""
    return f"{zlib.crc32(json.dumps(record).encode()):08x}"


def _parsed(text: str) -> Record | None:
    """The record of a line; None where it is damaged."""
    try:
        record = json.loads(text, parse_constant=lambda word: None)
        checksum = record.pop(CHECKSUM, None)  # an older version, or another program, writes none
        is_whole = (
            checksum in (None, _checksum(record))
            and record.keys() >= set(KEYS)
            and record["kind"] in KINDS
            and all(type(record[name]) is int and 0 < record[name] < _HUGE for name in ("step", "epoch"))
            and record["seconds"] is not None
            and all(_is_number(value) for name, value in record.items() if name != "kind")
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return record if is_whole else None


def _is_number(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) < _HUGE)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
