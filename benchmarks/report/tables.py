"""RESULTS.md: a row for every recipe, and what is to be known of each of its runs."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.report.runs import SHARE, Run
from benchmarks.report.words import mean_and_deviation, ran_on
from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.presets import PRESETS
from deq_jax.training.settings.record import differences

SELECTION = (
    "The settings of the CIFAR-10 presets were chosen by the accuracy of short runs on the images of this very test "
    "split, so that to them it is not unseen."
)
_SWEPT = (("forward_residual", ".1e"), ("converged", ".2%"))
"""What a further evaluation has measured beside accuracy and evaluations, and how it is written."""


def nearest_preset(config: Config) -> tuple[str, dict[str, Any]]:
    """The preset that is nearest, by data, then network, then the rest; and what differs from it but the seed."""

    def changes(name: str) -> dict[str, Any]:
        preset = dataclasses.replace(PRESETS[name](), seed=config.seed)
        return {field: value for field, (_, value) in differences(preset, config).items()}

    def distance(name: str) -> tuple[bool, int, int]:
        changed = changes(name)
        of_the_model = sum(field.startswith("model.") for field in changed)
        return PRESETS[name]().dataset != config.dataset, of_the_model, len(changed)

    nearest = min(PRESETS, key=distance)
    return nearest, changes(nearest)


def page(groups: Sequence[Sequence[Run]], picture: str = "") -> str:
    """RESULTS.md, with a picture below its table."""
    head = (
        "# Results\n\n"
        "Written by `python -m benchmarks.report` from the runs' own files. Accuracy is on the test split after the "
        "last step, mean ± sample standard deviation over seeds. Minutes are those of the training steps alone. "
        f"Evaluations are means a step, forward + backward, over the first and the last {SHARE:.0%} of all steps.\n"
    )
    tenths = [f"evaluations, {which} {SHARE:.0%}" for which in ("first", "last")]
    names = ("preset", "parameters", "augmentation", "seeds", "accuracy, %", "minutes", *tenths)
    table = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    table += [f"| {' | '.join(_row(number, runs))} |" for number, runs in enumerate(groups, 1)]
    presets = [nearest_preset(runs[0].config) for runs in groups]
    # The preset itself keeps its name; of what would take the same folder each has a number of its own.
    names = [
        preset if not changes and presets.count((preset, changes)) == 1 else f"{preset}-{number}"
        for number, (preset, changes) in enumerate(presets, 1)
    ]
    details = [_details(number, name, runs) for number, (name, runs) in enumerate(zip(names, groups, strict=True), 1)]
    if any(run.config.dataset == "cifar10" for runs in groups for run in runs):
        head += f"\n{SELECTION}\n"
    return "\n".join([head, *table, "", *([picture, ""] if picture else []), *details])


def title(number: int, runs: Sequence[Run]) -> str:
    """What a recipe is called: its place and its preset."""
    preset, changes = nearest_preset(runs[0].config)
    return f"{number}. {preset}{', changed' if changes else ''}"


def _row(number: int, runs: Sequence[Run]) -> list[str]:
    images = runs[0].config.augmentation
    words = [*(["flips"] if images.flip else []), *([f"shifts to {images.shift}"] if images.shift else [])]
    at_test = "; mean of both flips at test time" if runs[0].config.evaluation.flip else ""
    return [
        title(number, runs),
        f"{runs[0].environment['parameters']:,}",
        (", ".join(words) or "none") + at_test,
        ", ".join(str(run.config.seed) for run in runs),
        mean_and_deviation([100 * run.accuracy for run in runs]),
        mean_and_deviation([run.minutes for run in runs], digits=1),
        _evaluations(runs, is_late=False),
        _evaluations(runs, is_late=True),
    ]


def _evaluations(runs: Sequence[Run], *, is_late: bool) -> str:
    def mean(name: str) -> str:
        values = [value for run in runs if (value := run.mean(name, is_late=is_late)) is not None]
        return f"{statistics.fmean(values):.1f}" if values else "–"

    return f"{mean('forward_iterations')} + {mean('adjoint_iterations')}"


def _details(number: int, name: str, runs: Sequence[Run]) -> str:
    preset, changes = nearest_preset(runs[0].config)
    changed = ", ".join(f"`{name}` {value}" for name, value in changes.items()) or "nothing"
    lines = [f"## {number}. {preset}", "", f"Changed from the preset: {changed}.", ""]
    lines += dict.fromkeys(f"- {_circumstances(run, start)}" for run in runs for start in run.starts)
    lines += ["", *(_account(run) for run in runs), "", "```console", *_commands(name, preset, changes, runs), "```"]
    return "\n".join([*lines, *_sweep(runs), ""])


def _commands(name: str, preset: str, changes: dict[str, Any], runs: Sequence[Run]) -> list[str]:
    """What trains these runs again, and evaluates them, in folders that no other recipe's commands name."""
    options = [f"--{name.replace('_', '-')} {_words(value)}" for name, value in changes.items()]
    lines = []
    for run in runs:
        out = f"runs/{name}-{run.config.seed}"
        data = [] if run.config.data_dir is None else ["--data-dir DIR"]
        command = ["python train.py", preset, "--seed", str(run.config.seed), *options, *data, "--out", out]
        lines += [f"$ {' '.join(command)}", f"$ python -m deq_jax.evaluate {out}"]
    return lines


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _circumstances(run: Run, ran: dict[str, Any]) -> str:
    """Data, sources and machine of one start of a run."""
    data = run.environment["data"]
    stored = f", stored as {data['encoding']}" if data["encoding"] else ""
    return (
        f"{run.config.dataset}: {data['training_images']:,} training and {data['test_images']:,} test images{stored}; "
        f"{ran_on(ran)}."
    )


def _account(run: Run) -> str:
    last = run.evals[-1]
    radius, converged = last.get("spectral_radius"), last.get("forward_converged")
    return (
        f"- Seed {run.config.seed}: {run.accuracy:.2%} after {last['step']:,} steps, {run.minutes:.1f} minutes; "
        f"at test time {last['forward_iterations']:.1f} evaluations"
        + (f" to a residual of {last['forward_residual']:.1e}" if last["forward_residual"] is not None else "")
        + (
            f", {1 - converged:.2%} of the solves short of the tolerance"
            if radius is not None and converged is not None
            else ""
        )
        + (f", spectral radius {radius:.2f}" if radius is not None else "")
        + (f"; resumed {len(run.environment['resumed'])} times" if run.environment["resumed"] else "")
        + "."
    )


def _sweep(runs: Sequence[Run]) -> list[str]:
    """What further evaluations found, one line each."""
    rows = [(run.config.seed, line) for run in runs for line in run.test_evaluations]
    if not rows:
        return []
    names = ("seed", "tolerance", "at most", "accuracy, %", "evaluations", "residual", "converged")
    lines = ["", "By `python -m benchmarks.report.tolerances`:", ""]
    lines += [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for seed, line in rows:
        cells = (
            seed,
            f"{line['tol']:g}",
            line["max_iter"],
            f"{100 * line['accuracy']:.2f}",
            f"{line['forward_iterations']:.1f}",
            *("–" if line[name] is None else f"{line[name]:{form}}" for name, form in _SWEPT),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    accuracies = [[line["accuracy"] for line in run.test_evaluations] for run in runs if run.test_evaluations]
    change = max(max(one) - min(one) for one in accuracies)
    return [*lines, "", f"Over these tolerances the accuracy of a run changes by {100 * change:.2f} points at most."]
