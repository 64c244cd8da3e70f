"""deq_jax's solvers beside SciPy's, on the problems of :mod:`benchmarks.problems`.

``python -m benchmarks.solvers [--out DIR]`` prints a table, whether three promises hold, and what is lost of the family
of :mod:`benchmarks.starts`, and writes ``solvers.json`` and ``solvers.png``. The cost is the evaluations of ``f`` until
one of them has a relative residual of at most ``tol``; everyone has ``max_iter`` of them.
"""

import json
import statistics
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import deq_jax
from benchmarks import starts
from benchmarks.problems import Problem, suite
from deq_jax.training.disk import environment

OURS = tuple(name for name in ("forward_iteration", "anderson", "broyden") if hasattr(deq_jax, name))
SCIPY = ("anderson", "broyden1", "newton_krylov")
COLORS = {"forward_iteration": "#8a8f98", "anderson": "#1f6f8b", "broyden": "#d1603d"}


class Outcome(NamedTuple):
    """What one solver made of one problem, sample by sample."""

    evaluations: list[int]
    residual: list[float]
    """Relative residual of the answer, recomputed in float64."""
    solved: list[bool]
    status: list[str]


class Row(NamedTuple):
    """One problem and the outcome of every solver, by name; SciPy's start with "scipy "."""

    name: str
    dtype: str
    shape: list[int]
    tol: float
    max_iter: int
    outcomes: dict[str, Outcome]


class _StopError(Exception):
    """SciPy has found its answer, or spent its evaluations."""


def measure(problem: Problem) -> Row:
    """Run every solver on a problem."""
    outcomes = {name: run_ours(problem, getattr(deq_jax, name)) for name in OURS}
    outcomes |= {f"scipy {name}": run_scipy(problem, getattr(scipy.optimize, name)) for name in SCIPY}
    z0 = problem.z0
    return Row(problem.name, str(z0.dtype), list(z0.shape), problem.tol, problem.max_iter, outcomes)


def run_ours(problem: Problem, solver: Callable[..., deq_jax.Solution]) -> Outcome:
    """Solve the batch with one of deq_jax's solvers at its defaults.

    The loop sees the residual in the state's dtype; solved are samples whose residual in float64 is at most ``tol`` and
    one rounding error of that dtype.
    """
    f, tol, max_iter = problem.f, problem.tol, problem.max_iter
    solve = jax.jit(lambda z0, x, w: solver(lambda z: f(z, x, w), z0, tol=tol, max_iter=max_iter))
    sol, exact = solve(problem.z0, problem.x, problem.w), problem.astype(jnp.float64)
    z = np.asarray(sol.value, np.float64)
    residual = relative_residual(np.asarray(jax.jit(f)(z, exact.x, exact.w)), z)
    bound = tol + float(jnp.finfo(problem.z0.dtype).eps)
    return Outcome(
        sol.iterations.tolist(),
        residual.tolist(),
        [bool(r <= bound) for r in residual],
        [deq_jax.Status(int(status)).name for status in sol.status],
    )


def run_scipy(problem: Problem, method: Callable[..., Any]) -> Outcome:
    """Find the root of ``f(z) − z`` with one of SciPy's methods, each sample on its own and all in float64.

    It is stopped from within ``f``, at the first evaluation that meets ``tol``: later than that would be its own
    criterion, an absolute one. Where it fails it may try again: without its line search, and with the first step that
    plain iteration takes rather than the far smaller one of its own choice.
    """
    exact, f = problem.astype(jnp.float64), jax.jit(problem.f)
    results = []
    for i in range(len(problem.z0)):
        tried = []
        for settings in _attempts(method):
            tried.append(_run_scipy_once(f, exact.sample(i), method, **settings))
            if tried[-1][2]:
                break
        results.append(tried[-1] if tried[-1][2] else tried[0])
    return Outcome(*map(list, zip(*results, strict=True)))


def _attempts(method: Callable[..., Any]) -> list[dict[str, Any]]:
    """Settings to try in turn; a Krylov method has no first guess of the Jacobian."""
    steps: list[dict[str, Any]] = [{}] if method is scipy.optimize.newton_krylov else [{}, {"alpha": 1.0}]
    return [step | {"line_search": search} for step in steps for search in ("armijo", None)]


def _run_scipy_once(
    f: Callable[..., Any], one: Problem, method: Callable[..., Any], **settings: Any
) -> tuple[int, float, bool, str]:
    evaluations, best = 0, np.inf

    def root(flat: np.ndarray) -> np.ndarray:
        nonlocal evaluations, best
        z = flat.reshape(one.z0.shape)
        fz = np.asarray(f(z, one.x, one.w))
        evaluations += 1
        best = float(np.fmin(best, relative_residual(fz, z)[0]))
        if best <= one.tol or evaluations == one.max_iter:
            raise _StopError
        return (fz - z).ravel()

    label = ", ".join(f"{name}={value}" for name, value in settings.items())
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            start = np.asarray(one.z0, np.float64).ravel()
            method(root, start, f_tol=1e-300, maxiter=one.max_iter, **settings)
    except _StopError:
        pass
    except (scipy.optimize.NoConvergence, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        label += f", {type(error).__name__}"
    return evaluations, best, best <= one.tol, label


def relative_residual(fz: np.ndarray, z: np.ndarray) -> np.ndarray:
    """``‖f(z) − z‖₂ / ‖f(z)‖₂`` of each sample, ``[batch]``; not a number where ``f`` is not finite."""
    fz, z = (a.reshape(len(a), -1) for a in (fz, z))
    with np.errstate(all="ignore"):
        return np.linalg.norm(fz - z, axis=1) / np.linalg.norm(fz, axis=1)


class Summary(NamedTuple):
    """The three promises: the first two by what breaks them, the third by its figures."""

    slower: list[str]
    unsolved: list[str]
    median_of_solved: float
    median_of_all: float


def summarise(rows: Sequence[Row]) -> Summary:
    """Hold the promises of Anderson acceleration against the rows, sample by sample.

    A ratio is Anderson's mean evaluations over forward iteration's; the first median is over problems whose samples
    both solve, the second over those that Anderson solves, forward iteration's count being ``max_iter`` where it fails.
    """
    slower, unsolved, solved_ratios, ratios = [], [], [], []
    for row in rows:
        ours, plain = row.outcomes["anderson"], row.outcomes["forward_iteration"]
        for i, solved in enumerate(ours.solved):
            where = f"{row.name} [{i}]"
            if plain.solved[i] and not (solved and ours.evaluations[i] <= plain.evaluations[i] + 2):
                spent = f"{ours.evaluations[i]}" + ("" if solved else ", unsolved")
                slower.append(f"{where}: {spent} against {plain.evaluations[i]}")
            others = [name for name, outcome in row.outcomes.items() if "scipy" in name and outcome.solved[i]]
            if others and not solved:
                unsolved.append(f"{where}: solved by {', '.join(others)}")
        if all(ours.solved):
            counts = [n if ok else row.max_iter for n, ok in zip(plain.evaluations, plain.solved, strict=True)]
            ratios.append(statistics.mean(ours.evaluations) / statistics.mean(counts))
            if all(plain.solved):
                solved_ratios.append(ratios[-1])
    medians = (statistics.median(r) if r else float("nan") for r in (solved_ratios, ratios))
    return Summary(slower, unsolved, *medians)


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text: each solver's mean evaluations, and of how many samples unsolved."""
    head = ["problem", "dtype", "tol", "max_iter", *(name.replace("_iteration", "") for name in rows[0].outcomes)]
    body = [[r.name, r.dtype, f"{r.tol:g}", f"{r.max_iter}", *map(_cell, r.outcomes.values())] for r in rows]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    # Words to the left, numbers to the right.
    layout = "  ".join(f"{{:{'<' if i < 2 else '>'}{width}}}" for i, width in enumerate(widths))
    return "\n".join(layout.format(*line) for line in [head, ["-" * width for width in widths], *body])


def _cell(outcome: Outcome) -> str:
    failed, mean = outcome.solved.count(False), f"{statistics.mean(outcome.evaluations):.1f}"
    return "–" if failed == len(outcome.solved) else f"({failed} –) {mean}" if failed else mean


def report(summary: Summary, rows: Sequence[Row]) -> str:
    """The promises in words, with what breaks them by name."""

    def verdict(broken: list[str]) -> str:
        return "\n     ".join([f"broken {len(broken)} times", *broken]) if broken else "holds"

    samples = sum(len(row.outcomes["anderson"].solved) for row in rows)
    halved = max(summary.median_of_solved, summary.median_of_all) <= 0.5
    return f"""{len(rows)} problems, {samples} samples. Mean evaluations, – where unsolved.
1. Anderson needs at most 2 evaluations more than forward iteration: {verdict(summary.slower)}
2. Anderson solves what any of SciPy's three solves: {verdict(summary.unsolved)}
3. Anderson needs at most half of forward iteration's evaluations at the median: {"holds" if halved else "is broken"}
     {summary.median_of_solved:.2f} where both solve, {summary.median_of_all:.2f} with unsolved runs at max_iter"""


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw each solver's mean evaluations on each problem; a cross at ``max_iter`` where samples are left unsolved."""
    figure = Figure(figsize=(9, 1.5 + 0.28 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)  # no window system: nothing but a file is wanted
    axes = figure.subplots()
    heights = np.arange(len(rows))[::-1]
    names = [name for name in COLORS if name in rows[0].outcomes]
    for lift, name in zip((0.22, 0.0, -0.22), names, strict=False):
        solved = np.array([all(row.outcomes[name].solved) for row in rows])
        counts = np.array([statistics.mean(row.outcomes[name].evaluations) for row in rows], float)
        counts = np.where(solved, counts, [row.max_iter for row in rows])
        y, color, label = heights + lift, COLORS[name], name.replace("_", " ")
        axes.plot(counts[solved], y[solved], "o", color=color, label=label, markersize=5.5, markeredgecolor="white")
        axes.plot(counts[~solved], y[~solved], "x", color=color, markersize=5)
    axes.plot([], [], "x", color="black", markersize=5, label="unsolved samples")
    axes.set(xscale="log", xlabel="evaluations of f, mean over the samples", ylim=(-1, len(rows)))
    axes.set_yticks(heights, [row.name for row in rows], fontsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=len(names) + 1, frameon=False)
    figure.savefig(path, dpi=130)


def main(out: Path = Path("benchmarks/results")) -> None:
    """Compare deq_jax's fixed-point solvers with SciPy's, in evaluations.

    Args:
        out: where to write solvers.json and solvers.png.
    """
    with jax.enable_x64(True):
        rows = [measure(problem) for problem in suite()]
        print(f"{table(rows)}\n\n{report(summarise(rows), rows)}\n\n{starts.report(starts.counts())}")
    write(rows, out)


def write(rows: Sequence[Row], out: Path) -> None:
    """Write ``solvers.json``, with the environment, and ``solvers.png`` into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "environment": {**environment.describe(), "scipy": scipy.__version__},
        "summary": summarise(rows)._asdict(),
        "rows": [row._asdict() | {"outcomes": {k: v._asdict() for k, v in row.outcomes.items()}} for row in rows],
    }
    strict = json.loads(json.dumps(content), parse_constant=lambda _: None)  # JSON has no NaN
    (out / "solvers.json").write_text(json.dumps(strict, indent=1, ensure_ascii=False) + "\n")
    draw(rows, out / "solvers.png")


if __name__ == "__main__":
    tyro.cli(main)
