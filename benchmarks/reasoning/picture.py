"""The comparison as a picture: right answers over difficulty, and over evaluations at test time."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.reasoning.tables import Row, grouped
from deq_jax.plots import COLORS


def draw(puzzle: str, rows: Sequence[Row], path: Path) -> None:
    """Draw every run: two panels, a colour a contestant."""
    figure = Figure(figsize=(9, 3.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # no window system: nothing but a file is wanted
    panels = figure.subplots(1, 2, sharey=True)
    for (name, label), ax in zip(
        (("exact", "difficulty"), ("over_evaluations", "evaluations at most")), panels, strict=True
    ):
        for color, (contestant, group) in zip(COLORS, grouped(rows).items(), strict=False):
            for number, row in enumerate(group):
                # Keys are strings once results.json has been read again.
                points = [float(key) for key in row[name]]
                shares = [100 * share for share in row[name].values()]
                ax.plot(
                    points, shares, "o-", color=color, markersize=3, linewidth=1.4, label="" if number else contestant
                )
        ax.set_xscale("log", base=2)
        ax.set_xticks(points, [f"{point:g}" for point in points])
        ax.minorticks_off()
        ax.set_xlabel(label)
        ax.grid(alpha=0.25, linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_title(f"{puzzle}: wholly right, %", loc="left", fontsize=11)
    panels[0].legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)
