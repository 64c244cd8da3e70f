"""Pictures of what solvers return: residuals over evaluations, and how many evaluations samples took."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from deq_jax.plots.style import COLORS, current_axes, dressed
from deq_jax.solution import Solution, Status

_BARS = 40
"""Bars at most for one solution; beyond, neighbouring numbers share one."""


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
    ax = current_axes(ax)
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
    return dressed(ax, "evaluation", "relative residual")


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
    ax, named = current_axes(ax), _by_name(solutions)
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
    return dressed(ax, "evaluations until a sample stopped", "samples")


def _held(trace: Float[np.ndarray, "evaluations batch"]) -> Float[np.ndarray, "evaluations batch"]:
    """The trace with the last residual of a sample that has stopped in the place of what it has none of."""
    held = trace.copy()
    for k in range(1, len(held)):
        held[k] = np.where(np.isinf(held[k]), held[k - 1], held[k])
    return held


def _by_name(solutions: Solution | Mapping[str, Solution]) -> Mapping[str, Solution]:
    return {"": solutions} if isinstance(solutions, Solution) else solutions
