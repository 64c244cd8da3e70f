"""Maps that plain iteration solves and on which a mixture can overshoot, each from many starts and in both precisions.

Gradient steps on convex functions whose curvature grows far out, plateaus, and contractions with slopes near 1. What
counts is whether an accelerated solver loses a start that plain iteration solves within the same evaluations.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

import deq_jax

STARTS = 500
CURVATURES = (1.0, 2.0, 3.0)


class Map(NamedTuple):
    """Find ``z = f(z)`` from starts drawn evenly between ``low`` and ``high``, ``size`` numbers each."""

    name: str
    f: Callable[[Array], Array]
    size: int
    low: float
    high: float
    tol: float
    max_iter: int

    def starts(self, dtype: DTypeLike) -> Array:
        """The starts, ``[STARTS, size]``, always the same."""
        return jax.random.uniform(jax.random.key(self.size), (STARTS, self.size), dtype, self.low, self.high)


class Count(NamedTuple):
    """Of the starts of one map, in one precision and by one solver."""

    name: str
    dtype: str
    solver: str
    solved_plain: int
    lost: int
    """Solved by plain iteration, and not by this solver."""
    slower: int
    """Solved by both, and by this solver with more than two evaluations more."""
    ratio: float
    """Evaluations over plain iteration's, median over what both solve."""
    worst: float
    """The largest of these ratios."""


def family() -> list[Map]:
    """Every map of the family."""
    return [
        Map("cubic gradient", lambda z: z - (z**3 + z - 5) / 100, 1, -6, 6, 1e-5, 3000),
        Map("quartic, loose", lambda z: z - 0.005 * (z**3 + _c(z) * z - 5), 3, -5, 5, 1e-2, 3000),
        Map("quartic", lambda z: z - 0.005 * (z**3 + _c(z) * z - 5), 3, -5, 5, 1e-5, 5000),
        Map("quintic gradient", lambda z: z - 0.0005 * (z**5 + _c(z) * z - 5), 3, -4, 4, 1e-4, 20000),
        Map("exponential", lambda z: z - 0.01 * (jnp.exp(z) + _c(z) * z - 5), 3, -5, 5, 1e-4, 5000),
        Map("hyperbolic sine", lambda z: z - 0.005 * (jnp.sinh(z) + 0.1 * z - 1), 5, -6, 6, 1e-4, 20000),
        Map("coupled quartic", _coupled_quartic, 10, -3, 3, 1e-4, 20000),
        Map("two plateaus", lambda z: z - 0.5 * (jax.nn.sigmoid(4 * z) - 0.9), 4, -10, 10, 1e-5, 5000),
        Map("Huber", lambda z: z - 0.1 * (jnp.clip(z - 3, -1, 1) + 0.05 * (z - 3)), 3, -100, 100, 1e-4, 5000),
        Map("drift", _drift, 2, -30, 30, 1e-3, 2000),
        Map("stiff tanh", lambda z: 0.995 * jnp.tanh(z) + 0.003 * jnp.sin(z) + 0.01, 5, -10, 10, 1e-4, 5000),
        Map("stiff cubic", lambda z: 0.99 * z - 0.002 * z**3 + 0.05, 2, -15, 15, 1e-4, 5000),
    ]


def count(one: Map, dtype: DTypeLike, solver: Callable[..., deq_jax.Solution]) -> Count:
    """Solve from all starts, by plain iteration and by a solver at its defaults."""
    starts = one.starts(dtype)

    def run(solver: Callable[..., deq_jax.Solution]) -> tuple[np.ndarray, np.ndarray]:
        solution = jax.jit(lambda z0: solver(one.f, z0, tol=one.tol, max_iter=one.max_iter))(starts)
        return np.asarray(solution.status == deq_jax.Status.CONVERGED), np.asarray(solution.iterations)

    (plain_solved, plain), (solved, spent) = run(deq_jax.forward_iteration), run(solver)
    both = plain_solved & solved
    ratios = spent[both] / plain[both] if both.any() else np.array([np.nan])
    return Count(
        one.name,
        jnp.dtype(dtype).name,
        solver.__name__,
        int(plain_solved.sum()),
        int((plain_solved & ~solved).sum()),
        int((spent[both] > plain[both] + 2).sum()),
        float(np.median(ratios)),
        float(ratios.max()),
    )


def counts() -> list[Count]:
    """The whole family; needs ``jax.enable_x64``."""
    solvers = (deq_jax.anderson, deq_jax.broyden)
    return [count(one, d, s) for one in family() for d in (jnp.float32, jnp.float64) for s in solvers]


def report(counted: Sequence[Count]) -> str:
    """A line for each count, and the sums."""
    lines = [
        f"{c.name:18}{c.dtype:9}{c.solver:10}{c.solved_plain:4} solved by plain iteration, {c.lost} of them lost, "
        f"{c.slower:3} slower; {c.ratio:.2f} of its evaluations at the median, {c.worst:.1f} at most"
        for c in counted
    ]
    for solver in dict.fromkeys(c.solver for c in counted):
        own = [c for c in counted if c.solver == solver]
        lines.append(
            f"{solver}: {sum(c.lost for c in own)} of {sum(c.solved_plain for c in own)} lost, "
            f"{sum(c.slower for c in own)} slower"
        )
    return "\n".join(lines)


def _c(z: Array) -> Array:
    return jnp.asarray(CURVATURES, z.dtype)


def _coupled_quartic(z: Array) -> Array:
    """A gradient step on ``Σ (Qᵀz)⁴/4 + zᵀ Q D Qᵀ z/2 − Σ z``, with ``Q`` orthogonal and ``D`` from 0.01 to 1."""
    q = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0], z.dtype)
    d = jnp.asarray(np.logspace(-2, 0, 10), z.dtype)
    y = z @ q
    return z - 0.02 * ((y**3 + d * y) @ q.T - 1)


def _drift(z: Array) -> Array:
    """Steps of 1 towards 4 in the first number, half of the way to 2.3 in the second: slope 1 far out."""
    a, b = z[:, 0], z[:, 1]
    walked = jnp.where(abs(a - 4) <= 1, 4.0, jnp.where(a > 4, a - 1, a + 1)).astype(z.dtype)
    return jnp.stack([walked, b + (2.3 - b) / 2], 1)
