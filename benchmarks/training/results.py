"""The results as a table, as goals met or missed, and as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.training.rounds import Measured

OURS = "deq_jax"
OURS_COLOR, PEER_COLOR, INK = "#1f6f8b", "#c3c8cf", "#2b2f36"

HEAD = (
    ("", "seconds a step", "times", "evaluations", "", "forward residual", "adjoint residual", "gradient", "peak"),
    ("", "median (min–max)", "deq_jax", "forward", "backward", "mean / worst", "mean / worst", "error", "MB"),
)
SPEED_GOALS = {
    "chapter": 3,
    "torchdeq": 3,
    "torchdeq-small-lam": 3,
    "jaxopt": 10,
    "optimistix": 10,
    "deq_jax-stock": 10,
}
MEMORY_GOAL = 0.25


def table(rows: Sequence[Measured]) -> str:
    """The rows as aligned text; a ratio is a contestant's median over deq_jax's."""
    lines = [*HEAD, *(_cells(row, _median(rows, OURS)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    layout = "  ".join(f"{{:{'<' if i == 0 else '>'}{width}}}" for i, width in enumerate(widths))
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    aligned = [layout.format(*line).rstrip() for line in lines]
    return "\n".join([*aligned[: len(HEAD)], rule, *aligned[len(HEAD) :]])


def _cells(row: Measured, ours: float | None) -> tuple[str, ...]:
    a = row.accuracy
    return (
        row.name,
        f"{row.median:.2f} ({min(row.step_seconds):.2f}–{max(row.step_seconds):.2f})",
        "–" if ours is None else f"{row.median / ours:.2f}",
        _first_and_last(row.forward),
        _first_and_last(row.backward),
        f"{a['residual_mean']:.1e} / {a['residual_worst']:.1e}",
        f"{a['adjoint_mean']:.1e} / {a['adjoint_worst']:.1e}",
        f"{a['gradient_error']:.3f}",
        f"{row.peak_mb:.0f}",
    )


def _first_and_last(counts: Sequence[int]) -> str:
    first, last = counts
    return str(first) if first == last else f"{first} → {last}"


def _median(rows: Sequence[Measured], name: str) -> float | None:
    return next((row.median for row in rows if row.name == name), None)


FOOTNOTE = """\
Evaluations: calls of the cell on the whole batch, and products with its Jacobian or its transpose; counted as they run,
in an instrumented copy of the step, at the first batch → at the last. Residuals: ‖f(z) − z‖/‖f(z)‖ and
‖Jᵀg + y − g‖/‖Jᵀg + y‖ of the returned z and g, recomputed in float64 by one reference cell. Gradient error:
‖grad − exact‖/‖exact‖ over all parameters at the first batch, where exact is a float64 solve to 1e-10 of that whole
batch. Peak: resident memory of the process over the timed steps."""


def goals(rows: Sequence[Measured]) -> list[str]:
    """The goals in words, each met or missed with its figure; those without a contestant are left out."""
    by_name = {row.name: row for row in rows}
    if OURS not in by_name:
        return []
    ours, lines = by_name[OURS], []
    for name, goal in SPEED_GOALS.items():
        if name in by_name:
            ratio = by_name[name].median / ours.median
            lines.append(f"{_verdict(ratio >= goal)}: {ratio:.1f} times as fast as {name}; the goal is {goal}")
    for name in ("chapter", "torchdeq", "torchdeq-small-lam"):
        if name in by_name:
            a, b = ours.accuracy, by_name[name].accuracy
            for what in ("residual_mean", "residual_worst", "gradient_error"):
                said = f"{what.replace('_', ' ')} {a[what]:.2g} against {name}'s {b[what]:.2g}"
                lines.append(f"{_verdict(a[what] <= b[what])}: {said}; the goal is equal or smaller")
    if "backpropagation" in by_name:
        other = by_name["backpropagation"]
        ratio = (ours.peak_mb - ours.rest_mb) / (other.peak_mb - other.rest_mb)
        said = f"{ratio:.2f} of the memory that backpropagation's step takes on top of the process at rest"
        lines.append(f"{_verdict(ratio <= MEMORY_GOAL)}: {said}; the goal is at most {MEMORY_GOAL}")
    return lines


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def draw(rows: Sequence[Measured], title: str, path: Path) -> None:
    """Draw seconds a step as bars for each of the weights, slowest first, with the range and the ratio to deq_jax."""
    by_weights = {name: [row for row in rows if row.weights == name] for name in dict.fromkeys(r.weights for r in rows)}
    sizes = [1.0 + len(chosen) for chosen in by_weights.values()]
    figure = Figure(figsize=(9, 0.6 + 0.55 * sum(sizes)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # no window system: nothing but a file is wanted
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    panels = figure.subplots(len(sizes), squeeze=False, sharex=True, height_ratios=sizes)
    for axes, (weights, chosen) in zip(panels[:, 0], by_weights.items(), strict=True):
        _draw_bars(axes, sorted(chosen, key=lambda row: row.median))
        axes.set_title(f"weights: {weights}", loc="left", fontsize=9, color=INK)
    widest = max(max(row.step_seconds) for row in rows)
    panels[-1, 0].set_xlim(0, widest * 1.5)
    panels[-1, 0].set_xlabel("seconds a training step: median, and range over the rounds", fontsize=9, color=INK)
    figure.savefig(path, dpi=130)


def _draw_bars(axes: Axes, rows: Sequence[Measured]) -> None:
    ours, heights = _median(rows, OURS), np.arange(len(rows))
    medians = np.array([row.median for row in rows])
    colors = [OURS_COLOR if row.name == OURS else PEER_COLOR for row in rows]
    axes.barh(heights, medians, height=0.62, color=colors)
    low = medians - [min(row.step_seconds) for row in rows]
    high = [max(row.step_seconds) for row in rows] - medians
    axes.errorbar(medians, heights, xerr=[low, high], fmt="none", ecolor=INK, elinewidth=1, capsize=2.5, alpha=0.7)
    for height, row in zip(heights, rows, strict=True):
        ratio = "" if ours is None or row.name == OURS else f"   {row.median / ours:.1f}×"
        error = f"   gradient error {row.accuracy['gradient_error']:.1%}"
        text = f"  {row.median:.2f} s{ratio}{error}"
        axes.text(max(row.step_seconds), height, text, va="center", fontsize=9, color=INK)
    axes.set_yticks(heights, [row.name for row in rows], fontsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
