"""RESULTS.md: a row for every recipe, and what is to be known of each of its runs."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.report.runs import SHARE, Run
from deq_jax.training.config import Config, differences
from deq_jax.training.presets import PRESETS


def nearest_preset(config: Config) -> tuple[str, dict[str, Any]]:
    """The preset that differs least, and the settings that differ from it, the seed aside."""

    def changes(name: str) -> dict[str, Any]:
        preset = dataclasses.replace(PRESETS[name](), seed=config.seed)
        return {field: value for field, (_, value) in differences(preset, config).items()}

    return min(((name, changes(name)) for name in PRESETS), key=lambda pair: len(pair[1]))


def page(groups: Sequence[Sequence[Run]], picture: str = "") -> str:
    """RESULTS.md, with a picture below its table."""
    head = (
        "# Results\n\n"
        "Written by `python -m benchmarks.report` from the runs' own files. Accuracy is on the test split after the "
        "last step, mean ± sample standard deviation over seeds. Minutes are those of the training steps alone. "
        f"Evaluations are means a step, forward + backward, over the first and the last {SHARE:.0%} of the steps.\n"
    )
    names = ("preset", "parameters", "augmentation", "seeds", "accuracy, %", "minutes", "early", "late")
    table = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    table += [f"| {' | '.join(_row(number, runs))} |" for number, runs in enumerate(groups, 1)]
    details = [_details(number, runs) for number, runs in enumerate(groups, 1)]
    return "\n".join([head, *table, "", *([picture, ""] if picture else []), *details])


def title(number: int, runs: Sequence[Run]) -> str:
    """What a recipe is called: its place and its preset."""
    preset, changes = nearest_preset(runs[0].config)
    return f"{number}. {preset}{', changed' if changes else ''}"


def _row(number: int, runs: Sequence[Run]) -> list[str]:
    images = runs[0].config.augmentation
    words = [*(["flips"] if images.flip else []), *([f"shifts to {images.shift}"] if images.shift else [])]
    return [
        title(number, runs),
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
    cores = "1 CPU core" if ran["cpu_count"] == 1 else f"{ran['cpu_count']} CPU cores"
    machine = f"{cores} ({ran.get('cpu') or ran['platform']})" if devices == "cpu" else devices
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
