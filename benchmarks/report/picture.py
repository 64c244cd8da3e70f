"""Accuracy over minutes of training, recipe beside recipe."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.report.runs import Run
from benchmarks.report.tables import title
from deq_jax.plots import COLORS


def draw(groups: Sequence[Sequence[Run]], path: Path) -> None:
    """Draw every run's accuracy on the test split over its minutes: a panel a data set, a colour a recipe."""
    datasets = list(dict.fromkeys(runs[0].config.dataset for runs in groups))
    figure = Figure(figsize=(8, 4.2 * len(datasets)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # no window system: nothing but a file is wanted
    for ax, dataset in zip(figure.subplots(len(datasets), squeeze=False)[:, 0], datasets, strict=True):
        for number, runs in enumerate(groups):
            if runs[0].config.dataset == dataset:
                _lines(ax, runs, title(number + 1, runs), COLORS[number % len(COLORS)])
        ax.set_title(f"{dataset}: accuracy on the test split, %", loc="left", fontsize=11)
        ax.set_xlabel("minutes of training steps")
        ax.grid(alpha=0.25, linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=9, loc="lower right")
    figure.savefig(path, dpi=120)


def link(path: Path, page: Path) -> str:
    """The picture, to put into a page."""
    where = quote(os.path.relpath(path, page.parent).replace(os.sep, "/"))
    return f"![Accuracy on the test split over minutes of training]({where})"


def _lines(ax: Axes, runs: Sequence[Run], label: str, color: str) -> None:
    for seed, run in enumerate(runs):
        points = [(run.minutes_until(line["step"]), 100 * line["accuracy"]) for line in run.evals]
        minutes, accuracy = zip(*points, strict=True)
        ax.plot(minutes, accuracy, "o-", color=color, markersize=3, linewidth=1.4, label="" if seed else label)
