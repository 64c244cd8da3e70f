"""``python -m benchmarks.report``: RESULTS.md from the files that training runs leave.

A run counts once it has been trained to its end. Runs whose settings differ in the seed alone are one row. Where its
folder holds ``evaluations.jsonl``, lines that ``python -m deq_jax.evaluate`` has printed, they are shown, too::

    python -m deq_jax.evaluate RUN --tol 1e-4 --max-iter 60 >> RUN/evaluations.jsonl
"""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from deq_jax.training import metrics
from deq_jax.training.config import MAY_DIFFER, Config, differences, flatten, to_dict
from deq_jax.training.folder import read_config
from deq_jax.training.presets import PRESETS

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
    def minutes(self) -> float:
        """Minutes that the training steps took, without compilation, evaluations and checkpoints."""
        return sum(record["step_seconds"] for record in self.train) / 60

    def mean(self, name: str, *, is_late: bool) -> float | None:
        """Mean of a measured quantity over the first or the last steps; None where it was not measured."""
        count = max(1, round(SHARE * len(self.train)))
        records = self.train[-count:] if is_late else self.train[:count]
        values = [record[name] for record in records if record.get(name) is not None]
        return statistics.fmean(values) if values else None


def read_run(folder: Path) -> Run | None:
    """The run in a folder; None where it has not been trained to its end, or has not recorded what it ran on."""
    config = read_config(folder)
    records = metrics.read(folder / "metrics.jsonl")
    train = [record for record in records if record["kind"] == "train"]
    evals = [record for record in records if record["kind"] == "eval"]
    path, more = folder / "environment.json", folder / "evaluations.jsonl"
    if not (train and evals and path.exists()) or evals[-1]["accuracy"] is None:
        return None
    environment = json.loads(path.read_text(encoding="utf-8"))
    steps = config.epochs * (environment["data"]["training_images"] // config.batch_size)
    if evals[-1]["step"] < steps:
        return None
    lines = more.read_text(encoding="utf-8").splitlines() if more.exists() else []
    return Run(folder, config, environment, train, evals, [json.loads(line) for line in lines if line.strip()])


def grouped(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs that differ in the seed alone, side by side; groups by falling mean accuracy."""
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.config.seed, run.folder)):
        settings = {name: value for name, value in flatten(to_dict(run.config)).items() if name not in MAY_DIFFER}
        groups.setdefault(json.dumps(settings | {"seed": None}, sort_keys=True), []).append(run)
    return sorted(groups.values(), key=lambda runs: -statistics.fmean(run.accuracy for run in runs))


def nearest_preset(config: Config) -> tuple[str, dict[str, Any]]:
    """The preset that differs least, and the settings that differ from it, the seed aside."""

    def changes(name: str) -> dict[str, Any]:
        preset = dataclasses.replace(PRESETS[name](), seed=config.seed)
        return {field: value for field, (_, value) in differences(preset, config).items()}

    return min(((name, changes(name)) for name in PRESETS), key=lambda pair: len(pair[1]))


def report(groups: Sequence[Sequence[Run]]) -> str:
    """RESULTS.md."""
    head = (
        "# Results\n\n"
        "Written by `python -m benchmarks.report` from the runs' own files. Accuracy is on the test split after the "
        "last step, mean ± sample standard deviation over seeds. Minutes are those of the training steps alone. "
        f"Evaluations are means a step, forward + backward, over the first and the last {SHARE:.0%} of the steps.\n"
    )
    names = ("preset", "parameters", "augmentation", "seeds", "accuracy, %", "minutes", "early", "late")
    table = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    table += [f"| {' | '.join(_row(number, runs))} |" for number, runs in enumerate(groups, 1)]
    return "\n".join([head, *table, "", *(_details(number, runs) for number, runs in enumerate(groups, 1))])


def _row(number: int, runs: Sequence[Run]) -> list[str]:
    preset, changes = nearest_preset(runs[0].config)
    images = runs[0].config.augmentation
    words = [*(["flips"] if images.flip else []), *([f"shifts to {images.shift}"] if images.shift else [])]
    return [
        f"{number}. {preset}{', changed' if changes else ''}",
        f"{runs[0].environment['parameters']:,}",
        ", ".join(words) or "none",
        ", ".join(str(run.config.seed) for run in runs),
        _mean_and_deviation([100 * run.accuracy for run in runs]),
        _mean_and_deviation([run.minutes for run in runs], digits=1),
        _evaluations(runs, is_late=False),
        _evaluations(runs, is_late=True),
    ]


def _evaluations(runs: Sequence[Run], *, is_late: bool) -> str:
    def mean(name: str) -> str:
        values = [value for run in runs if (value := run.mean(name, is_late=is_late)) is not None]
        return f"{statistics.fmean(values):.1f}" if values else "–"

    return f"{mean('forward_iterations')} + {mean('adjoint_iterations')}"


def _mean_and_deviation(values: Sequence[float], digits: int = 2) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _details(number: int, runs: Sequence[Run]) -> str:
    preset, changes = nearest_preset(runs[0].config)
    changed = ", ".join(f"`{name}` {value}" for name, value in changes.items()) or "nothing"
    lines = [f"## {number}. {preset}", "", f"Changed from the preset: {changed}.", ""]
    lines += dict.fromkeys(f"- {_circumstances(run)}" for run in runs)
    lines += ["", *(_account(run) for run in runs)]
    return "\n".join([*lines, *_sweep(runs), ""])


def _circumstances(run: Run) -> str:
    ran, data = run.environment, run.environment["data"]
    stored = f", stored as {data['encoding']}" if data["encoding"] else ""
    git = ran.get("git")
    commit = "unknown commit" if git is None else git["commit"][:12] + (", with local changes" if git["dirty"] else "")
    devices = ", ".join(sorted(set(ran["devices"])))
    machine = f"{ran['cpu_count']} CPU cores ({ran.get('cpu') or ran['platform']})" if devices == "cpu" else devices
    return (
        f"{run.config.dataset}: {data['training_images']:,} training and {data['test_images']:,} test images{stored}; "
        f"commit {commit}; {machine}; jax {ran['packages']['jax']}."
    )


def _account(run: Run) -> str:
    last = run.evals[-1]
    radius = last.get("spectral_radius")
    return (
        f"- Seed {run.config.seed}: {run.accuracy:.2%} after {last['step']:,} steps, {run.minutes:.1f} minutes; "
        f"at test time {last['forward_iterations']:.1f} evaluations"
        + (f" to a residual of {last['forward_residual']:.1e}" if last["forward_residual"] is not None else "")
        + (f", spectral radius {radius:.2f}" if radius is not None else "")
        + (f"; resumed {len(run.environment['resumed'])} times" if run.environment["resumed"] else "")
        + "."
    )


def _sweep(runs: Sequence[Run]) -> list[str]:
    """What further evaluations found, one line each."""
    rows = [(run.config.seed, line) for run in runs for line in run.evaluations]
    if not rows:
        return []
    lines = ["", "| seed | tolerance | at most | accuracy, % | evaluations | residual |", "|---|---|---|---|---|---|"]
    for seed, line in rows:
        residual = "–" if line["forward_residual"] is None else f"{line['forward_residual']:.1e}"
        lines.append(
            f"| {seed} | {line['tol']:g} | {line['max_iter']} | {100 * line['accuracy']:.2f} "
            f"| {line['forward_iterations']:.1f} | {residual} |"
        )
    return lines


def main(runs: Path = Path("runs"), out: Path = Path("RESULTS.md")) -> None:
    """Write RESULTS.md from all finished runs below a folder.

    Args:
        runs: the folder that holds the runs' folders.
        out: the file to write.
    """
    folders = sorted(path.parent for path in runs.rglob("config.json"))
    found = [run for folder in folders if (run := read_run(folder)) is not None]
    if not found:
        raise SystemExit(f"no finished run below {runs}; train one first: python train.py digits")
    out.write_text(report(grouped(found)), encoding="utf-8")
    print(f"wrote {out}: {len(found)} of {len(folders)} runs were finished.")


if __name__ == "__main__":
    tyro.cli(main)
