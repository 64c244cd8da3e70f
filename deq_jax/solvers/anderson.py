"""Anderson acceleration: the next iterate is a least-squares mixture of the last ``m``."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from deq_jax.settings import Scalar, check_positive, whole_number
from deq_jax.solution import Solution
from deq_jax.solvers.loop import Rule, solve
from deq_jax.trees import Matrices, accumulation_dtype

GAIN = 0.7
"""A mixture that is predicted to leave more than this share of ``‖g‖`` waits for plain steps to widen the history."""
PLAIN_STEPS = 2
"""Plain steps in a row at most."""
PATIENCE = 4
"""Evaluations without progress after which a sample's regularisation rises."""
TRIAL = 30
"""Evaluations with raised regularisation, still without progress, after which it returns to ``lam``."""
GROWTH = 100.0
"""A residual grown by this factor ends a trial at once: plain iteration diverges here."""


class _Safeguard(NamedTuple):
    """What decides, per sample, how far the mixture is held back towards plain iteration."""

    lam: Float[Array, " batch"]
    """The regularisation in force, at least the user's."""
    best: Float[Array, " batch"]
    """The smallest ``‖g‖`` that counts as progress to beat."""
    stalled: Int[Array, " batch"]
    """Evaluations since it was beaten."""
    plain: Int[Array, " batch"]
    """Plain steps taken in a row."""


class _History(NamedTuple):
    """The last ``m`` iterates in difference form; each leaf is ``[batch, m, n]``, a ring over ``m``.

    The newest row of ``residuals`` is ``g = f(z) − z`` and that of ``targets`` is ``z + beta · g``; an older row is the
    difference to its successor. Rows not yet written are zero, and a zero difference gets no weight.
    """

    residuals: PyTree[Float[Array, "batch m _n"]]
    targets: PyTree[Float[Array, "batch m _n"]]
    safeguard: _Safeguard


def anderson(
    f: Callable[[PyTree], PyTree],
    z0: PyTree,
    *,
    m: int = 5,
    lam: Scalar = 1e-4,
    beta: Scalar = 1.0,
    tol: Scalar = 1e-2,
    max_iter: int = 50,
    trace: bool = False,
) -> Solution:
    r"""Solve ``z = f(z)`` by Anderson acceleration, each sample on its own.

    With ``gᵢ = f(zᵢ) − zᵢ``, the next iterate is the mixture ``Σ αᵢ (zᵢ + beta · gᵢ)`` of the last ``m`` iterates whose
    coefficients minimise ``‖Σ αᵢ gᵢ‖₂`` subject to ``Σ αᵢ = 1``. The problem is solved without its constraint, in the
    differences of successive iterates,

    $$\gamma = \operatorname*{argmin}_\gamma
    \|g - \Delta G\,\gamma\|_2^2 + \lambda \sum_i \|\Delta g_i\|_2^2\,\gamma_i^2,$$

    $$z \leftarrow z + \beta\,g - (\Delta Z + \beta\,\Delta G)\,\gamma,$$

    where ``λ``, here ``lam``, is relative to each column, so that the answer does not depend on the scale of ``f``;
    where differences vanish or repeat, ``γ`` does too, and the step falls back to plain iteration.

    Two safeguards, per sample. Where a full history promises to remove less than 30% of the residual, one or two plain
    steps come first, to widen what the history spans. Where the residual has not improved for a while, ``lam`` rises
    step by step, which turns the mixture into plain iteration, and falls again with progress.

    Args:
        f: maps a state to a state of the same structure, shapes and dtypes, each sample on its own.
        z0: where to start; a pytree of floating-point arrays ``[batch, ...]``.
        m: iterates in the mixture, at least 1; 1 is forward iteration, damped by ``beta``.
        lam: relative regularisation of the least squares, at least 0.
        beta: the share of the residual that is added to the mixture, positive: below 1 damps, above 1 over-projects.
        tol: relative residual ``‖f(z) − z‖₂ / ‖f(z)‖₂`` at which a sample has converged.
        max_iter: evaluations of ``f`` at most.
        trace: whether to record the residual of every evaluation.

    Returns:
        A [`deq_jax.Solution`][].

    Raises:
        TypeError: ``f(z0)`` has another structure, shape or dtype than ``z0``, or ``z0`` is not floating-point.
        ValueError: the leading axes of ``z0`` differ, or a setting is out of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> sol = anderson(lambda z: jnp.cos(z), jnp.zeros((1, 1)), tol=1e-6)
        >>> print(f"{sol.value[0, 0]:.5f}", sol.status)
        0.73909 [0]

    Source: Walker and Ni, "Anderson acceleration for fixed-point iterations", 2011, equations 2.1 to 2.3; plain steps
    in between: Banerjee et al., "Periodic Pulay method", 2016; the chapter, "Implementation of the forward pass".
    """
    m = whole_number("m", m)
    check_positive("beta", beta)
    check_positive("lam", lam, or_zero=True)
    is_plain_mixing = isinstance(beta, int | float) and beta == 1

    def init(z0: Matrices) -> _History:
        dtype = accumulation_dtype(z0)
        zeros = jax.tree.map(lambda leaf: jnp.zeros((leaf.shape[0], m, leaf.shape[1]), dtype), z0)
        batch = jax.tree.leaves(z0)[0].shape[0]
        none = jnp.zeros(batch, jnp.int32)
        safeguard = _Safeguard(jnp.full(batch, lam, dtype), jnp.full(batch, jnp.inf, dtype), none, none)
        return _History(zeros, zeros, safeguard)

    def update(z: Matrices, fz: Matrices, history: _History, k: Int[Array, ""]) -> tuple[Matrices, _History]:
        dtype = accumulation_dtype(z)
        g = jax.tree.map(lambda a, b: b.astype(dtype) - a.astype(dtype), z, fz)
        target = fz if is_plain_mixing else jax.tree.map(lambda a, b: a.astype(dtype) + beta * b, z, g)
        residuals = jax.tree.map(lambda rows, row: _push(rows, row.astype(dtype), k), history.residuals, g)
        targets = jax.tree.map(lambda rows, row: _push(rows, row.astype(dtype), k), history.targets, target)
        gram = _gram(residuals)
        norm = jnp.sqrt(jnp.diagonal(gram, axis1=1, axis2=2)[:, k % m])
        safeguard = _hold_back(history.safeguard, norm, lam)
        weights, gain = jax.vmap(_weights, in_axes=(0, None, 0))(gram, k % m, safeguard.lam)
        waits = (k >= m) & (gain > GAIN) & (safeguard.plain < PLAIN_STEPS)
        weights = jnp.where(waits[:, None], jnp.arange(m) == k % m, weights)
        safeguard = safeguard._replace(plain=jnp.where(waits, safeguard.plain + 1, 0))
        mixture = jax.tree.map(
            lambda rows, leaf: jnp.einsum("bi,bin->bn", weights, rows, precision=lax.Precision.HIGHEST).astype(
                leaf.dtype
            ),
            targets,
            z,
        )
        return mixture, _History(residuals, targets, safeguard)

    return solve(Rule(init, update), f, z0, tol=tol, max_iter=max_iter, trace=trace)


def _hold_back(seen: _Safeguard, norm: Float[Array, " batch"], lam: Scalar) -> _Safeguard:
    """Raise the regularisation 1e4-fold an evaluation while ``‖g‖`` stalls, and lower it 10-fold in progress.

    A raised one holds the mixture back towards plain iteration, which gets out of cycles that mixtures run into. Where
    that brings no progress either, or makes ``‖g‖`` explode, the trial ends: plain iteration may diverge.
    """
    progress = norm < seen.best
    stalled = jnp.where(progress, 0, seen.stalled + 1)
    exploded = norm > GROWTH * seen.best
    ends = exploded | (stalled > PATIENCE + TRIAL)
    higher = jnp.where(stalled > PATIENCE, jnp.clip(1e4 * seen.lam, 1e-8, 1e3), seen.lam)
    lam_next = jnp.where(progress, jnp.maximum(seen.lam / 10, lam), higher)
    return _Safeguard(
        jnp.where(ends, lam, lam_next).astype(seen.lam.dtype),
        jnp.where(progress | exploded, norm, seen.best),
        jnp.where(ends, 0, stalled),
        seen.plain,
    )


def _push(
    rows: Float[Array, "batch m n"], newest: Float[Array, "batch n"], k: Int[Array, ""]
) -> Float[Array, "batch m n"]:
    """Write ``newest`` as row ``k mod m``, and turn the row before it into a difference; both in place."""
    m = rows.shape[1]
    before = (k - 1) % m
    previous = lax.dynamic_index_in_dim(rows, before, axis=1)
    difference = jnp.where(k == 0, 0, newest[:, None] - previous)
    rows = lax.dynamic_update_slice_in_dim(rows, difference, before, axis=1)
    return lax.dynamic_update_slice_in_dim(rows, newest[:, None], k % m, axis=1)


def _gram(rows: PyTree[Float[Array, "batch m _n"]]) -> Float[Array, "batch m m"]:
    """Inner products of the rows, per sample, summed over all leaves."""
    products = [
        jnp.einsum("bin,bjn->bij", leaf, leaf, precision=lax.Precision.HIGHEST) for leaf in jax.tree.leaves(rows)
    ]
    return functools.reduce(jnp.add, products)


def _weights(
    gram: Float[Array, "m m"], newest: Int[Array, ""], lam: Float[Array, ""]
) -> tuple[Float[Array, " m"], Float[Array, ""]]:
    """The weights of one sample's rows, 1 for the newest and ``−γ`` for the differences, and ``‖g − ΔG γ‖ / ‖g‖``.

    ``gram`` holds the inner products of the rows of ``residuals``. The normal equations are scaled to a unit diagonal
    first: residuals shrink by orders of magnitude over a history, and would otherwise drown in the largest.
    """
    m = gram.shape[0]
    is_newest = jnp.arange(m) == newest
    squares = jnp.where(is_newest, 0, jnp.diagonal(gram))
    scale = jnp.where(squares > 0, lax.rsqrt(jnp.where(squares > 0, squares, 1)), 0)
    normal = gram * scale[:, None] * scale[None, :]
    floor = m * jnp.finfo(gram.dtype).eps
    normal = jnp.where(jnp.eye(m, dtype=bool), 1 + jnp.maximum(lam, floor), normal)
    gamma = scale * jax.scipy.linalg.solve(normal, scale * (gram @ is_newest.astype(gram.dtype)), assume_a="pos")
    weights = jnp.where(is_newest, 1, -gamma)
    weights = jnp.where(jnp.all(jnp.isfinite(weights)), weights, is_newest.astype(gram.dtype))
    square = gram[newest, newest]
    gain = jnp.sqrt(jnp.maximum(weights @ gram @ weights, 0) / jnp.where(square > 0, square, 1))
    return weights, gain
