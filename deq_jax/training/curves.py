"""curves.png: how a run went, drawn from its metrics.jsonl alone."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deq_jax.training.files import writing_to
from deq_jax.training.metrics import Record, read

FORWARD, ADJOINT = "#1f6f8b", "#d1603d"
# The mean over this share of the run's steps is drawn over the steps themselves.
_WINDOW = 0.03


def draw(run: Path) -> None:
    """Draws loss, accuracy, evaluations, residuals and stability over the steps of a run into `run`/curves.png."""
    records = [record | _unconverged(record) for record in read(run / "metrics.jsonl")]
    train = [record for record in records if record["kind"] == "train"]
    evals = [record for record in records if record["kind"] == "eval"]

    figure = Figure(figsize=(11, 11), layout="constrained")
    FigureCanvasAgg(figure)  # no window system: nothing but a file is wanted
    (loss, accuracy), (iterations, residuals), (radius, unconverged) = figure.subplots(3, 2, sharex=True)

    _plot(loss, train, evals, "loss", FORWARD, "train", "test")
    _plot(accuracy, train, evals, "accuracy", FORWARD, "train", "test", scale=100.0)
    _plot(iterations, train, evals, "forward_iterations", FORWARD, "forward", "forward, test")
    _plot(iterations, train, [], "adjoint_iterations", ADJOINT, "adjoint", "")
    _plot(residuals, train, evals, "forward_residual", FORWARD, "forward", "forward, test")
    _plot(residuals, train, [], "adjoint_residual", ADJOINT, "adjoint", "")

    _plot(radius, [], evals, "spectral_radius", FORWARD, "", "mean, test")
    _plot(radius, [], evals, "spectral_radius_max", ADJOINT, "", "largest, test")
    _plot(unconverged, train, evals, "forward_unconverged", FORWARD, "forward", "forward, test", scale=100.0)
    _plot(unconverged, train, [], "adjoint_unconverged", ADJOINT, "adjoint", "", scale=100.0)

    loss.set_title("Cross-entropy")
    accuracy.set_title("Accuracy, %")
    iterations.set_title("Evaluations a solve")
    residuals.set_title("Relative residual")
    radius.set_title("Spectral radius of ∂f/∂z")
    unconverged.set_title("Samples short of the tolerance, %")
    for axes in (iterations, radius, unconverged):
        axes.set_ylim(bottom=0)
    # A logarithmic axis without a positive value would warn.
    if any(record[name] for record in train for name in ("forward_residual", "adjoint_residual")):
        residuals.set_yscale("log")
    for axes in figure.axes:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9)
    for axes in (radius, unconverged):
        axes.set_xlabel("step")
    figure.suptitle(_headline(run, evals), fontsize=11)
    temporary = run / ".curves.png"
    with writing_to(run):
        figure.savefig(temporary, dpi=110, format="png")
        temporary.replace(run / "curves.png")


def _plot(
    axes: Axes,
    train: list[Record],
    evals: list[Record],
    name: str,
    color: str,
    label: str,
    eval_label: str,
    scale: float = 1.0,
) -> None:
    steps, values = _series(train, name)
    if len(steps):
        axes.plot(steps, scale * values, color=color, alpha=0.25, linewidth=0.7)
        axes.plot(steps, scale * _smoothed(values), color=color, linewidth=1.6, label=label)
    steps, values = _series(evals, name)
    if len(steps):
        axes.plot(steps, scale * values, "o", color=color, markersize=4.5, markeredgecolor="white", label=eval_label)


def _unconverged(record: Record) -> Record:
    """The shares of samples whose solves did not reach their tolerance, of those solves that there were."""
    shares = {name: record.get(f"{name}_converged") for name in ("forward", "adjoint")}
    return {f"{name}_unconverged": 1 - share for name, share in shares.items() if share is not None}


def _series(records: list[Record], name: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    pairs = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    array = np.array(pairs, float).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _smoothed(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The centred running mean, over fewer values towards the ends."""
    half = int(len(values) * _WINDOW / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    n = np.arange(len(values))
    low, high = np.maximum(n - half, 0), np.minimum(n + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _headline(run: Path, evals: list[Record]) -> str:
    if not evals or evals[-1]["accuracy"] is None:
        return run.name
    last = evals[-1]
    return f"{run.name}: {100 * last['accuracy']:.2f}% on the test split after {last['step']} steps"
