"""The picture of a run: its curves over the steps."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deq_jax.plots.style import ADJOINT, FORWARD, dressed, new_figure

# The mean over this share of a run's steps is drawn over the steps themselves.
_WINDOW = 0.03
_RADII = ("spectral_radius", "spectral_radius_max")
_SHARES = ("forward_unconverged", "adjoint_unconverged")


def curves(
    records: Sequence[Mapping[str, Any]],
    *,
    title: str = "",
    metrics: Mapping[str, str] = MappingProxyType({"accuracy": "%"}),
    figure: Figure | None = None,
) -> Figure:
    """Draw a training run: loss, metrics, the evaluations and residuals of both solves, and what tells of stability.

    The last two panels, the spectral radius of ``∂f/∂z`` and the samples whose solves fell short of their tolerance,
    are there where they were measured. Training steps are thin lines under their running mean, evaluations on the
    test split are dots.

    Args:
        records: the lines of a run's ``metrics.jsonl``, as dictionaries; a value that is None or missing is left out.
        title: a headline.
        metrics: names and units of the task's own metrics, each a panel; a share, whose unit is %, is drawn in percent.
        figure: where to draw; by default a new figure, for a file and for a notebook.

    Returns:
        The figure.
    """
    records = [{**record, **_unconverged(record)} for record in records]
    has_radii, has_shares = (
        any(record.get(name) is not None for record in records for name in names) for names in (_RADII, _SHARES)
    )
    titles = ["Loss", *(f"{name.capitalize()}, {unit}".rstrip(", ") for name, unit in metrics.items())]
    titles += ["Evaluations a solve", "Relative residual"]
    titles += ["Spectral radius of ∂f/∂z"] if has_radii else []
    titles += ["Samples short of the tolerance, %"] if has_shares else []
    rows = (len(titles) + 1) // 2
    if figure is None:
        figure = new_figure(11.0, 0.5 + 3.5 * rows)
    grid = figure.subplots(rows, 2, sharex=True, squeeze=False).flat
    axes, unused = list(grid[: len(titles)]), list(grid[len(titles) :])
    train, evals = ([record for record in records if record["kind"] == kind] for kind in ("train", "eval"))
    scales = {"loss": 1.0} | {name: 100.0 if unit == "%" else 1.0 for name, unit in metrics.items()}
    for ax, (name, scale) in zip(axes, scales.items(), strict=False):
        _over_steps(ax, train, evals, name, FORWARD, ("train", "test"), scale)
    evaluations, residual, *watched = axes[len(scales) :]
    for ax, name in ((evaluations, "iterations"), (residual, "residual")):
        _over_steps(ax, train, evals, f"forward_{name}", FORWARD, ("forward", "forward, test"))
        _over_steps(ax, train, [], f"adjoint_{name}", ADJOINT, ("adjoint", ""))
    if has_radii:
        _over_steps(watched[0], [], evals, "spectral_radius", FORWARD, ("", "mean, test"))
        _over_steps(watched[0], [], evals, "spectral_radius_max", ADJOINT, ("", "largest, test"))
    if has_shares:
        unconverged = watched[-1]
        _over_steps(unconverged, train, evals, "forward_unconverged", FORWARD, ("forward", "forward, test"), 100.0)
        _over_steps(unconverged, train, [], "adjoint_unconverged", ADJOINT, ("adjoint", ""), 100.0)
    # A logarithmic axis without a positive value would warn.
    if any(record.get(name) for record in train for name in ("forward_residual", "adjoint_residual")):
        residual.set_yscale("log")
    for ax in unused:
        ax.remove()
    for ax, name in zip(axes, titles, strict=True):
        ax.set_title(name)
        is_last = ax in axes[-2:]  # of its column
        dressed(ax, "step" if is_last else "", "")
        ax.tick_params(labelbottom=is_last)
        if ax in (evaluations, *watched):
            ax.set_ylim(bottom=0)
    figure.suptitle(title, fontsize=11)
    return figure


def smoothed(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The centred running mean over 3% of the values, over fewer towards the ends.

    Args:
        values: one number a step, ``[n]``.

    Returns:
        The means, ``[n]``.
    """
    half = int(len(values) * _WINDOW / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    n = np.arange(len(values))
    low, high = np.maximum(n - half, 0), np.minimum(n + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _unconverged(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The shares of samples whose solves did not reach their tolerance, of those solves that there were."""
    shares = {name: record.get(f"{name}_converged") for name in ("forward", "adjoint")}
    return {f"{name}_unconverged": 1 - share for name, share in shares.items() if share is not None}


def _over_steps(
    ax: Axes,
    train: Sequence[Mapping[str, Any]],
    evals: Sequence[Mapping[str, Any]],
    name: str,
    color: str,
    labels: tuple[str, str],
    scale: float = 1.0,
) -> None:
    steps, values = _series(train, name)
    if len(steps):
        ax.plot(steps, scale * values, color=color, alpha=0.25, linewidth=0.7)
        ax.plot(steps, scale * smoothed(values), color=color, linewidth=1.6, label=labels[0])
    steps, values = _series(evals, name)
    if len(steps):
        ax.plot(steps, scale * values, "o", color=color, markersize=4.5, markeredgecolor="white", label=labels[1])


def _series(records: Sequence[Mapping[str, Any]], name: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    pairs = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    array = np.array(pairs, float).reshape(-1, 2)
    return array[:, 0], array[:, 1]
