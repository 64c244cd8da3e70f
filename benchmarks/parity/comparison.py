"""Whether two trainings are the same: numbers, and a picture of both."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

OUTPUT_GOAL = 1e-4
"""Largest difference of first outputs, relative to the largest output."""
WINDOW = 15
"""Steps of the running mean in which loss curves are compared."""
OURS, CHAPTER = "#1f6f8b", "#d1603d"


def output_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, relative to the largest output."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def smoothed(losses: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Running means ``[seeds, steps − window + 1]`` of loss curves ``[seeds, steps]``."""
    return np.apply_along_axis(np.convolve, 1, losses, np.ones(window) / window, mode="valid")


def compare(ours: np.ndarray, chapter: np.ndarray) -> dict[str, Any]:
    """Differences of loss curves ``[seeds, steps]``, seed by seed, beside the spread over seeds.

    ``gap`` is the mean of |ours − theirs| of the same seed over steps and seeds, ``spread`` the chapter's sample
    standard deviation over seeds, its mean over steps; both of running means. ``mean_gap`` is the gap between the means
    over seeds.
    """
    a, b = smoothed(ours), smoothed(chapter)
    return {
        "gap": float(np.abs(a - b).mean()),
        "largest_gap": float(np.abs(a - b).max()),
        "mean_gap": float(np.abs(a.mean(0) - b.mean(0)).mean()),
        "spread": float(b.std(0, ddof=1).mean()),
        "first_loss": [ours[:, 0].tolist(), chapter[:, 0].tolist()],
        "final_loss": [a[:, -1].tolist(), b[:, -1].tolist()],
    }


def draw(ours: np.ndarray, chapter: np.ndarray, title: str, path: Path) -> None:
    """Draw every seed's loss curve on both sides, as running means, and below them the differences."""
    figure = Figure(figsize=(9, 6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # no window system: nothing but a file is wanted
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    a, b = smoothed(ours), smoothed(chapter)
    steps = np.arange(a.shape[1]) + WINDOW
    for seed, (one, other) in enumerate(zip(a, b, strict=True)):
        top.plot(steps, other, color=CHAPTER, linewidth=2.6, alpha=0.55, label=None if seed else "the chapter, PyTorch")
        top.plot(steps, one, color=OURS, linewidth=1.1, label=None if seed else "deq_jax")
        bottom.plot(steps, one - other, color=OURS, linewidth=0.9)
    spread = b.std(0, ddof=1)
    bottom.fill_between(steps, -spread, spread, color=CHAPTER, alpha=0.18, linewidth=0, label="spread over seeds")
    top.set_ylabel(f"training loss, mean of {WINDOW} steps")
    bottom.set_ylabel("difference")
    bottom.set_xlabel("step")
    top.set_title(title, loc="left", fontsize=11)
    for axes in (top, bottom):
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)
