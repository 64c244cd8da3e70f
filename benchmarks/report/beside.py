"""``python -m benchmarks.report.beside TITLE RUN...``: runs of any task side by side, as a section of RESULTS.md.

Runs that differ in the seed alone are one row. `python -m benchmarks.report` leaves the section as it is, so that the
rows stay when the runs are gone.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from benchmarks.report import sections
from benchmarks.report.runs import SHARE, mean_of, minutes_of
from benchmarks.report.words import mean_and_deviation, ran_on
from deq_jax.training.disk import metrics

MEASURES = {
    "accuracy": ("accuracy, %", 100, 2),
    "certified_accuracy": ("certified, %", 100, 2),
    "bits_per_byte": ("bits a byte", 1, 3),
    "exact": ("exact, %", 100, 1),
    "psnr": ("PSNR, dB", 1, 2),
}
"""What the test split is measured by, where a run has it: its heading, what it is multiplied by, and its digits."""
_OF_THIS_PLACE = ("--out", "--seed", "--data-dir")
"""Options that say where, and not what."""


class Trained(NamedTuple):
    """What a run's own files tell of it."""

    command: str
    """Without where its files are, and without its seed."""
    seed: int
    environment: dict[str, Any]
    train: list[metrics.Record]
    last: metrics.Record
    """The last look at the test split."""


def trained(folder: Path) -> Trained:
    """A run that was evaluated after its last step; raises SystemExit where it was not."""
    try:
        environment, config = (json.loads((folder / f"{name}.json").read_text()) for name in ("environment", "config"))
        lines = metrics.read(folder / "metrics.jsonl")
        command, seed = _told(environment["command"]), config["seed"]
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"{folder} is no run, or is damaged ({error}); give the folders of finished runs.") from None
    train = [line for line in lines if line["kind"] == "train"]
    evals = [line for line in lines if line["kind"] == "eval"]
    if not train or not evals or evals[-1]["step"] != train[-1]["step"]:
        raise SystemExit(f"{folder} has not come to its end; start it again to go on.")
    return Trained(command, seed, environment, train, evals[-1])


def _told(command: Sequence[str]) -> str:
    """As it can be given again anywhere; that of a training from Python is its own program's."""
    words, kept = iter(command[1:]), []
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if name in _OF_THIS_PLACE:
            if "=" not in word:
                next(words, None)
        elif name != "--quiet":
            kept.append(word)
    return shlex.join(["python", Path(command[0]).name, *kept])


def section(runs: Sequence[Trained]) -> str:
    """The table, and what the runs ran on."""
    rows: dict[str, list[Trained]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        row = rows.setdefault(run.command, [])
        if any(other.seed == run.seed for other in row):
            raise SystemExit(f"seed {run.seed} of {run.command} was given twice: the same run is no further evidence.")
        row.append(run)
    measures = [name for name in MEASURES if any(name in run.last for run in runs)]
    heads = [
        "trained by",
        "parameters",
        "steps",
        "seeds",
        *(MEASURES[name][0] for name in measures),
        "minutes",
        f"evaluations, last {SHARE:.0%}",
        "solves that converged, %",
    ]
    table = [f"| {' | '.join(heads)} |", f"|---{'|--:' * (len(heads) - 1)}|"]
    table += [f"| {' | '.join(_row(of, measures))} |" for of in rows.values()]
    ran = dict.fromkeys(ran_on(run.environment) for run in runs)
    return "\n".join([*table, "", *(f"- {line}" for line in ran)])


def _row(runs: Sequence[Trained], measures: Sequence[str]) -> list[str]:
    steps = runs[0].last["step"]
    late = max(1, round(SHARE * steps))
    solves = ("forward", "adjoint")
    evaluations = [_mean([mean_of(run.train[-late:], f"{solve}_iterations") for run in runs], 1) for solve in solves]
    shares = [_mean([mean_of(run.train, f"{solve}_converged") for run in runs], 2, 100) for solve in solves]
    return [
        f"`{runs[0].command}`",
        f"{runs[0].environment['parameters']:,}",
        f"{steps:,}",
        ", ".join(str(run.seed) for run in runs),
        *(_mean([run.last.get(name) for run in runs], MEASURES[name][2], MEASURES[name][1]) for name in measures),
        _mean([minutes_of(run.train) for run in runs], 1),
        " + ".join(evaluations),
        " + ".join(shares),
    ]


def _mean(values: Sequence[float | None], digits: int, factor: float = 1) -> str:
    known = [factor * value for value in values if value is not None]
    return mean_and_deviation(known, digits) if known else "–"


def main(
    title: Annotated[str, tyro.conf.Positional],
    runs: Annotated[list[Path], tyro.conf.Positional],
    out: Path = Path("RESULTS.md"),
    note: str = "",
) -> None:
    """Put the runs into a page, in the place of the section of that title.

    Args:
        title: of the section.
        runs: folders of finished runs.
        out: the page.
        note: what is to be said before the table.
    """
    text = section([trained(run) for run in runs])
    sections.put(out, title, "\n\n".join([f"## {title}", *([note] if note else []), text]))
    print(text)


if __name__ == "__main__":
    tyro.cli(main)
