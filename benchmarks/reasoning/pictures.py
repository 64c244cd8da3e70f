"""The comparison as pictures, of what results.json files hold."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from benchmarks.reasoning.contestants import EQUILIBRIUM, LAYERS, trained_with
from benchmarks.reasoning.tables import Row, deblurred, exact, grouped, middle_of, pooled
from deq_jax.plots import COLORS
from deq_jax.plots.style import dressed, new_figure

_NEVER = 1e8
"""Residuals as large are none that were measured."""
_LOWEST = 10.0
"""Decibels below which a picture is lost, and curves are not followed."""


def draw(task: str, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw all pictures of a task into a folder."""
    if task == "deblur":
        return [_deblurring(rows, folder / "deblurring.png")]
    return [
        _accuracy(task, rows, folder / f"reasoning-{task}.png"),
        _trust(task, rows, folder / f"reasoning-{task}-trust.png"),
    ]


def _accuracy(task: str, rows: Sequence[Row], path: Path) -> Path:
    """Right answers over difficulty and over evaluations, and evaluations over difficulty."""
    figure = new_figure(12.0, 3.8)
    over_difficulty, over_evaluations, halting = figure.subplots(1, 3)
    middle, difficulties = middle_of(rows), list(rows[0]["problems"])
    for color, (name, group) in zip(COLORS, grouped(rows).items(), strict=False):
        for number, row in enumerate(group):
            label = "" if number else name
            _line(
                over_difficulty, [float(d) for d in difficulties], [exact(row, d) for d in difficulties], color, label
            )
            if name != LAYERS:
                numbers = list(row["problems"][middle])
                shares = [exact(row, middle, n) for n in numbers]
                _line(over_evaluations, [float(n) for n in numbers], shares, color, label)
    _halting(halting, grouped(rows).get(EQUILIBRIUM, []), difficulties)
    over_evaluations.axvline(trained_with(task), color=COLORS[2], linewidth=1, linestyle=":")
    _ticks(over_evaluations, [float(n) for n in next(iter(rows))["problems"][middle]])
    for ax in (over_difficulty, halting):
        _ticks(ax, [float(d) for d in difficulties])
        if float(difficulties[0]) > float(difficulties[-1]):
            ax.invert_xaxis()
    dressed(over_difficulty, "difficulty", "")
    dressed(over_evaluations, "evaluations at most; dotted: those of training", "").legend_.remove()
    dressed(halting, "difficulty", "")
    over_difficulty.set_title(f"{task}: wholly right, %", loc="left", fontsize=11)
    over_evaluations.set_title(f"… of difficulty {middle}", loc="left", fontsize=11)
    halting.set_title("evaluations that the equilibrium took", loc="left", fontsize=11)
    figure.savefig(path, dpi=100)
    return path


def _halting(ax: Axes, rows: Sequence[Row], difficulties: list[str]) -> None:
    """The median, and between which four fifths lie."""
    for row in rows:
        told = [next(reversed(row["problems"][d].values()))["evaluations"] for d in difficulties]
        low, half, high = np.quantile(np.array(told), [0.1, 0.5, 0.9], axis=1)
        points = [float(d) for d in difficulties]
        _line(ax, points, half, COLORS[0], "")
        ax.fill_between(points, low, high, color=COLORS[0], alpha=0.15, linewidth=0)
    ax.set_ylim(bottom=0)


def _trust(task: str, rows: Sequence[Row], path: Path) -> Path:
    """Residuals of right and of wrong answers, errors over residuals, and right answers over path independence."""
    figure = new_figure(12.0, 3.8)
    histogram, errors, independence = figure.subplots(1, 3)
    equilibria = grouped(rows).get(EQUILIBRIUM, [])
    if equilibria:
        last = list(next(iter(equilibria[0]["problems"].values())))[-1]
        parts = [pooled(row, last) for row in equilibria]
        residual = np.log10(np.maximum(np.concatenate([part[0] for part in parts]), 1e-8))
        is_right = np.concatenate([part[1] for part in parts])
        edges = np.linspace(residual.min() - 0.1, min(residual.max(), 2.0) + 0.1, 30)
        for kind, color, label in ((is_right, COLORS[0], "right"), (~is_right, COLORS[1], "wrong")):
            histogram.hist(residual[kind], edges, color=color, alpha=0.7, label=f"{label}, {kind.sum()}")
        histogram.set_yscale("symlog")
        histogram.set_title(f"{task}: answers by log₁₀ of their residual", loc="left", fontsize=11)
        for row in equilibria:
            _errors(errors, row)
    errors.set_xscale("log")
    errors.set_title("places that are wrong, %, by residual", loc="left", fontsize=11)
    for color, (name, group) in zip(COLORS, grouped(rows).items(), strict=False):
        pairs = [(row["independence"][d]["alignment"], exact(row, d)) for row in group for d in row["independence"]]
        if pairs:
            independence.scatter(*np.transpose(pairs), color=color, s=18, alpha=0.7, label=name)
    independence.set_title("wholly right, %, by alignment", loc="left", fontsize=11)
    dressed(histogram, "of the equilibrium, all difficulties", "answers")
    dressed(errors, "relative residual, by tenths of the answers", "")
    dressed(independence, "cosine of the states from two starts", "")
    figure.savefig(path, dpi=100)
    return path


def _errors(ax: Axes, row: Row) -> None:
    """A tenth of all problems and limits each, by their residuals."""
    told = [one for by_number in row["problems"].values() for one in by_number.values()]
    residual = np.concatenate([np.array(one["residual"]) for one in told])
    wrong = np.concatenate([np.array(one["wrong"]) for one in told])
    order = np.argsort(residual)
    order = order[residual[order] < _NEVER]
    tenths = np.array_split(order, 10)
    points = [float(np.exp(np.log(np.maximum(residual[tenth], 1e-12)).mean())) for tenth in tenths if len(tenth)]
    _line(ax, points, [100 * float(wrong[tenth].mean()) for tenth in tenths if len(tenth)], COLORS[0], "")


def _deblurring(rows: Sequence[Row], path: Path) -> Path:
    """Signal over noise by evaluations, and a patch after those of the training and after ten times as many."""
    figure = new_figure(11.0, 3.8)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.35))
    ax = left.subplots()
    highest = _LOWEST
    for color, (name, (_, curves)) in zip(COLORS, deblurred(rows).items(), strict=False):
        for number, curve in enumerate(curves):
            points = [(float(n), value) for n, value in curve.items() if value is not None and value > _LOWEST]
            if points:
                highest = max(highest, *(value for _, value in points))
                _line(ax, *map(list, zip(*points, strict=True)), color, "" if number else name)
    _ticks(ax, [float(n) for n in rows[0]["psnr"]])
    ax.set_ylim(_LOWEST, highest + 2)
    ax.set_title("peak signal-to-noise ratio, dB", loc="left", fontsize=11)
    dressed(ax, "evaluations", "")
    groups = [group[0] for group in grouped(rows).values()]
    panels = right.subplots(len(groups), 4, squeeze=False)
    for line, row in zip(panels, groups, strict=True):
        for panel, (name, patch) in zip(line, row["patches"].items(), strict=True):
            panel.imshow(np.array(patch), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            panel.set_title(name if not name.isdigit() else f"after {name}", fontsize=9)
            panel.set_xticks([], [])
            panel.set_yticks([], [])
        line[0].set_ylabel(row["contestant"], fontsize=9)
    figure.savefig(path, dpi=100)
    return path


def _line(ax: Axes, x: Sequence[float], y: Sequence[float], color: str, label: str) -> None:
    ax.plot(x, y, "o-", color=color, markersize=3, linewidth=1.4, label=label)


def _ticks(ax: Axes, points: Sequence[float]) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(points, [f"{point:g}" for point in points])
    ax.minorticks_off()
