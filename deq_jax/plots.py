"""Pictures of solves and of runs, as functions: the same ones in notebooks and in a run's ``curves.png``.

Needs matplotlib: ``pip install 'deq_jax[plots]'``. Importing ``deq_jax`` alone never imports it.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

try:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError("deq_jax.plots needs matplotlib: pip install 'deq_jax[plots]'.") from error

from deq_jax.solution import Solution, Status

__all__ = ["ADJOINT", "COLORS", "FORWARD", "curves", "iterations", "residuals", "smoothed"]

COLORS = ("#1f6f8b", "#d1603d", "#8a8f98", "#5b8c5a", "#8e5ea2", "#c9a227")
"""The project's colours, in the order in which they are used."""
FORWARD, ADJOINT = COLORS[:2]
"""Those of the forward and of the adjoint solve."""
# The mean over this share of a run's steps is drawn over the steps themselves.
_WINDOW = 0.03
_BARS = 40
"""Bars at most for one solution; beyond, neighbouring numbers share one."""
_STABILITY = ("spectral_radius", "spectral_radius_max", "forward_unconverged", "adjoint_unconverged")


def residuals(
    solutions: Solution | Mapping[str, Solution],
    *,
    tol: float | None = None,
    ax: Axes | None = None,
    colors: Sequence[str] = COLORS,
) -> Axes:
    """Draw the relative residual ``‖f(z) − z‖₂ / ‖f(z)‖₂`` of every evaluation, on a logarithmic axis.

    Each sample is a thin line, ending in a dot where it converged and in a cross where it did not. The median over the
    batch is bold; a sample that has stopped counts in it with its last residual.

    Args:
        solutions: what a solver returned with ``trace=True``, or several of them by name.
        tol: a tolerance to draw as a dashed line.
        ax: where to draw; by default matplotlib's current axes.
        colors: one for each solution, used again from the start when there are more.

    Returns:
        The axes.

    Raises:
        ValueError: a solution has no trace.

    Examples:
        >>> import jax.numpy as jnp, deq_jax
        >>> from matplotlib.figure import Figure
        >>> sol = deq_jax.anderson(lambda z: jnp.cos(z), jnp.zeros((1, 1)), trace=True)
        >>> residuals({"Anderson": sol}, tol=1e-2, ax=Figure().subplots()).get_ylabel()
        'relative residual'
    """
    ax = _axes(ax)
    for k, (name, solution) in enumerate(_by_name(solutions).items()):
        if solution.trace is None:
            raise ValueError(f"{name or 'the solution'} has no trace: call the solver with trace=True.")
        trace = np.asarray(solution.trace, float)[: max(int(np.max(solution.iterations)), 1)]
        color, evaluations = colors[k % len(colors)], np.arange(1, len(trace) + 1)
        ax.plot(evaluations, trace, color=color, alpha=0.3, linewidth=0.8)
        for sample, status in enumerate(np.asarray(solution.status)):
            seen = np.flatnonzero(np.isfinite(trace[:, sample]))
            if len(seen):
                marker = "o" if status == Status.CONVERGED else "x"
                ax.plot(evaluations[seen[-1]], trace[seen[-1], sample], marker, color=color, alpha=0.6, markersize=3.5)
        held = np.ma.masked_invalid(_held(trace))  # of which all may be: the median of nothing would warn
        median = np.ma.median(held, axis=1).filled(np.nan)
        ax.plot(evaluations, median, color=color, linewidth=2, label=name or None)
    if tol is not None:
        ax.axhline(tol, color="#555555", linewidth=0.9, linestyle="--")
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _dressed(ax, "evaluation", "relative residual")


def iterations(
    solutions: Solution | Mapping[str, Solution], *, ax: Axes | None = None, colors: Sequence[str] = COLORS
) -> Axes:
    """Draw how many evaluations the samples of a batch took: for each number, how many samples.

    Numbers that range widely are counted together, a few neighbours to a bar. Samples that did not converge are
    stacked on top, hatched.

    Args:
        solutions: what a solver returned, or several of them by name; drawn side by side.
        ax: where to draw; by default matplotlib's current axes.
        colors: one for each solution, used again from the start when there are more.

    Returns:
        The axes.
    """
    ax, named = _axes(ax), _by_name(solutions)
    width = 0.8 / max(len(named), 1)
    low = min((int(np.min(sol.iterations)) for sol in named.values()), default=0)
    high = max((int(np.max(sol.iterations)) for sol in named.values()), default=0)
    step = 1 + (high - low) // _BARS
    for k, (name, solution) in enumerate(named.items()):
        spent, converged = np.asarray(solution.iterations), np.asarray(solution.status) == Status.CONVERGED
        edges = np.arange(low, high + step + 1, step) - 0.5
        done, failed = (np.histogram(spent[part], edges)[0] for part in (converged, ~converged))
        where, color = edges[:-1] + step * (0.1 + (k + 0.5) * width), colors[k % len(colors)]
        shown = done + failed > 0
        ax.bar(where[shown], done[shown], step * width, color=color, label=name or None)
        if failed.any():
            bars = ax.bar(where[shown], failed[shown], step * width, bottom=done[shown], color="white")
            for bar in bars:
                bar.set(edgecolor=color, hatch="////")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return _dressed(ax, "evaluations until a sample stopped", "samples")


def curves(
    records: Sequence[Mapping[str, Any]],
    *,
    title: str = "",
    metrics: Mapping[str, str] = MappingProxyType({"accuracy": "%"}),
    figure: Figure | None = None,
) -> Figure:
    """Draw a training run: loss, metrics, the evaluations and residuals of both solves, and what tells of stability.

    The last two panels, the spectral radius of ``∂f/∂z`` and the samples whose solves fell short of their tolerance,
    are there where either was measured. Training steps are thin lines under their running mean, evaluations on the
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
    is_watched = any(record.get(name) is not None for record in records for name in _STABILITY)
    titles = ["Loss", *(f"{name.capitalize()}, {unit}".rstrip(", ") for name, unit in metrics.items())]
    titles += ["Evaluations a solve", "Relative residual"]
    titles += ["Spectral radius of ∂f/∂z", "Samples short of the tolerance, %"] if is_watched else []
    rows = (len(titles) + 1) // 2
    if figure is None:
        figure = Figure(figsize=(11, 0.5 + 3.5 * rows), layout="constrained")
        FigureCanvasAgg(figure)  # no window system is needed
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
    if is_watched:
        radius, unconverged = watched
        _over_steps(radius, [], evals, "spectral_radius", FORWARD, ("", "mean, test"))
        _over_steps(radius, [], evals, "spectral_radius_max", ADJOINT, ("", "largest, test"))
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
        _dressed(ax, "step" if is_last else "", "")
        ax.tick_params(labelbottom=is_last)
        if ax in (evaluations, *watched):
            ax.set_ylim(bottom=0)
    figure.suptitle(title, fontsize=11)
    return figure


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


def _series(records: Sequence[Mapping[str, Any]], name: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    pairs = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    array = np.array(pairs, float).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _held(trace: Float[np.ndarray, "evaluations batch"]) -> Float[np.ndarray, "evaluations batch"]:
    """The trace with the last residual of a sample that has stopped in the place of what it has none of."""
    held = trace.copy()
    for k in range(1, len(held)):
        held[k] = np.where(np.isinf(held[k]), held[k - 1], held[k])
    return held


def _by_name(solutions: Solution | Mapping[str, Solution]) -> Mapping[str, Solution]:
    return {"": solutions} if isinstance(solutions, Solution) else solutions


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        import matplotlib.pyplot as plt  # here, since it chooses a window system

        return plt.gca()
    return ax


def _dressed(ax: Axes, xlabel: str, ylabel: str) -> Axes:
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=9)
    return ax
