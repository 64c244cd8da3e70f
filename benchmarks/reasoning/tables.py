"""The comparison in Markdown."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.reasoning.calibration import Calibration, calibrated
from benchmarks.reasoning.contestants import EQUILIBRIUM, LAYERS, QUESTIONS, trained_with
from benchmarks.reasoning.deblurring import PLAIN
from benchmarks.reasoning.measures import TOL

Row = dict[str, Any]


def tables(task: str, rows: Sequence[Row]) -> str:
    """All tables of a task, of its rows of results."""
    seeds = sorted({row["seed"] for row in rows})
    parts = [f"### {task}, seeds {', '.join(map(str, seeds))}", _training(rows)]
    parts += _of_deblurring(rows) if task == "deblur" else _of_puzzles(task, rows)
    return "\n\n".join(parts)


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The runs of each contestant."""
    names = dict.fromkeys(row["contestant"] for row in rows)
    return {name: [row for row in rows if row["contestant"] == name] for name in names}


def exact(row: Row, difficulty: str, evaluations: str | None = None) -> float:
    """The share of problems that are right in every place, in percent; of the most evaluations by themselves."""
    by_number = row["problems"][difficulty]
    wrong = by_number[list(by_number)[-1] if evaluations is None else evaluations]["wrong"]
    return 100 * float(np.mean(np.array(wrong) == 0))


def at_best(row: Row, difficulty: str) -> float:
    """The same at that number of evaluations which, with hindsight, serves best."""
    return max(exact(row, difficulty, number) for number in row["problems"][difficulty])


def pooled(row: Row, evaluations: str) -> tuple[np.ndarray, np.ndarray]:
    """Residuals, and whether the answers are right, of all difficulties: every other one of each in turn."""
    told = [by_number[evaluations] for by_number in row["problems"].values()]
    residual = np.concatenate([np.array(one["residual"]) for one in told])
    return residual, np.concatenate([np.array(one["wrong"]) for one in told]) == 0


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """The mean, and the sample standard deviation where there are several."""
    mean = f"{statistics.mean(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):{form}}"


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A table in Markdown: names to the left, numbers to the right."""
    head = [str(name) for name in head]
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _training(rows: Sequence[Row]) -> str:
    return table(
        ["trained", "parameters", "steps", "minutes"],
        (
            [name, f"{group[0]['parameters']:,}", f"{group[0]['steps']:,}", spread([row["minutes"] for row in group])]
            for name, group in grouped(rows).items()
        ),
    )


def _of_puzzles(task: str, rows: Sequence[Row]) -> list[str]:
    groups = grouped(rows)
    last, middle = str(QUESTIONS[task].evaluations[-1]), middle_of(rows)
    difficulties = list(rows[0]["problems"])
    parts = [table(["exact, %, at a difficulty of", *difficulties], _over_difficulty(groups, last, difficulties))]
    for difficulty in dict.fromkeys((middle, difficulties[-1])):
        numbers = list(rows[0]["problems"][difficulty])
        head = [f"exact, %, at {difficulty}, trained with {trained_with(task)} evaluations, with at most", *numbers]
        lines = (
            [name, *(spread([exact(row, difficulty, number) for row in group]) for number in numbers)]
            for name, group in groups.items()
            if name != LAYERS
        )
        parts.append(table(head, lines))
    parts.append(_independence(groups, difficulties))
    if EQUILIBRIUM in groups:
        parts += [_halting(groups[EQUILIBRIUM], last), _restarts(groups[EQUILIBRIUM]), _trust(groups[EQUILIBRIUM])]
    return parts


def middle_of(rows: Sequence[Row]) -> str:
    """A difficulty between those of training and the hardest."""
    difficulties = list(rows[0]["problems"])
    return difficulties[len(difficulties) // 2]


def _over_difficulty(groups: dict[str, list[Row]], last: str, difficulties: list[str]) -> Iterable[list[str]]:
    """Explicit networks twice: run on as far as the equilibrium, and where they are at their best."""
    for name, group in groups.items():
        if name == LAYERS:
            yield [name, *(spread([exact(row, d) for row in group]) for d in difficulties)]
            continue
        yield [f"{name}, at most {last} evaluations", *(spread([exact(row, d) for row in group]) for d in difficulties)]
        if name != EQUILIBRIUM:
            best = (spread([at_best(row, d) for row in group]) for d in difficulties)
            yield [f"{name}, at whichever number serves best", *best]


def _independence(groups: dict[str, list[Row]], difficulties: list[str]) -> str:
    asked = {
        "same answer from zeros and at random, %": ("same_answer", 100, ".1f"),
        "alignment": ("alignment", 1, ".3f"),
    }
    lines = (
        [
            f"{name}: {what}",
            *(spread([scale * row["independence"][d][key] for row in group], form) for d in difficulties),
        ]
        for name, group in groups.items()
        if name != LAYERS
        for what, (key, scale, form) in asked.items()
    )
    return table(["path independence, at a difficulty of", *difficulties], lines)


def _halting(rows: Sequence[Row], last: str) -> str:
    """Evaluations of the equilibrium."""

    def quantile(row: Row, difficulty: str, share: float) -> float:
        return float(np.quantile(row["problems"][difficulty][last]["evaluations"], share))

    asked: dict[str, Callable[[Row, str], float]] = {
        "a tenth take at most": lambda row, d: quantile(row, d, 0.1),
        "half take at most": lambda row, d: quantile(row, d, 0.5),
        "nine tenths take at most": lambda row, d: quantile(row, d, 0.9),
        "mean": lambda row, d: float(np.mean(row["problems"][d][last]["evaluations"])),
    }
    difficulties = list(rows[0]["problems"])
    lines = ([what, *(spread([of(row, d) for row in rows], ".0f") for d in difficulties)] for what, of in asked.items())
    return table(["evaluations of the equilibrium, at a difficulty of", *difficulties], lines)


def _restarts(rows: Sequence[Row]) -> str:
    names = {"zeros": "from zeros", "picked": "of five starts that of the lowest residual", "any": "any of the five"}
    lines = ([what, spread([100 * row["restarts"][key] for row in rows])] for key, what in names.items())
    return table(["exact, %, of the equilibrium at the hardest", ""], lines)


def _trust(rows: Sequence[Row]) -> str:
    """Whether a residual tells wrong answers, for every limit on evaluations, over all difficulties."""
    names = (
        "limit",
        "wrong, %",
        "area under the curve",
        "threshold",
        "of the wrong refused, %",
        "of the right refused, %",
    )
    lines = []
    for number in next(iter(rows[0]["problems"].values())):
        found = [one for row in rows if (one := calibrated(*pooled(row, number), TOL)) is not None]
        if found:
            lines.append([number, *_trusted(found)])
    if not lines:
        return "No limit leaves both right and wrong answers to be told apart."
    return table(names, lines)


def _trusted(found: Sequence[Calibration]) -> list[str]:
    return [
        spread([100 * one.wrong / (one.wrong + one.right) for one in found]),
        spread([one.area for one in found], ".3f"),
        spread([one.threshold for one in found], ".1e"),
        spread([100 * one.found for one in found]),
        spread([100 * one.refused for one in found]),
    ]


def _of_deblurring(rows: Sequence[Row]) -> list[str]:
    lines = deblurred(rows)
    numbers = list(rows[0]["psnr"])
    said = ([name, *(_ratio([curve[n] for curve in curves]) for n in numbers)] for name, (_, curves) in lines.items())
    losses = (
        [name, trained, _ratio([_lost(curve, trained) for curve in curves])]
        for name, (trained, curves) in lines.items()
    )
    return [
        table(["peak signal-to-noise ratio, dB, after evaluations", *numbers], said),
        table(["lost after ten times the training's evaluations", "which are", "dB"], losses),
    ]


def deblurred(rows: Sequence[Row]) -> dict[str, tuple[int, list[dict[str, float | None]]]]:
    """By name, the evaluations of its training, and the ratios over evaluations of every seed."""
    groups = grouped(rows)
    curves = {name: (group[0]["trained"], [row["psnr"] for row in group]) for name, group in groups.items()}
    if EQUILIBRIUM in groups:
        group = groups[EQUILIBRIUM]
        curves[PLAIN] = (group[0]["trained"], [row["plain"] for row in group])
    return curves


def _lost(curve: dict[str, float | None], trained: int) -> float | None:
    before, after = curve[str(trained)], curve[str(10 * trained)]
    return None if before is None or after is None else before - after


def _ratio(values: Sequence[float | None]) -> str:
    finite = [value for value in values if value is not None]
    return spread(finite, ".2f") if len(finite) == len(values) else "diverged"
