"""Anderson acceleration: the next iterate is a least-squares mixture of the last ``m``."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from deq_jax.settings import Scalar, check_positive, whole_number
from deq_jax.solution import Solution
from deq_jax.solvers.loop import Rule, solve
from deq_jax.trees import Matrices, accumulation_dtype, sample_dot

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
    """The last ``m`` iterates: the newest, and the differences between successive ones in rings of ``m − 1`` rows.

    A ring's leaves are ``[batch, m − 1, n]``. Rows not yet written are zero, and a zero difference gets no weight.
    """

    residual: Matrices
    """``g = f(z) − z`` of the newest iterate."""
    target: Matrices
    """``z + beta · g`` of the newest iterate."""
    residuals: PyTree[Float[Array, "batch rows _n"]]
    """``ΔG``."""
    targets: PyTree[Float[Array, "batch rows _n"]]
    """``ΔZ + beta · ΔG``."""
    gram: Float[Array, "batch rows rows"]
    """``ΔGᵀ ΔG``: an evaluation changes one row and column of it, and reads the ring for no more."""
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
    """Solve ``z = f(z)`` by Anderson acceleration, each sample on its own.

    With ``gᵢ = f(zᵢ) − zᵢ``, the next iterate is the mixture ``Σ αᵢ (zᵢ + beta · gᵢ)`` of the last ``m`` iterates whose
    coefficients minimise ``‖Σ αᵢ gᵢ‖₂`` subject to ``Σ αᵢ = 1``. The problem is solved without its constraint, in the
    differences of successive iterates,

        ``γ = argmin ‖g − ΔG γ‖₂² + lam · Σ ‖Δgᵢ‖₂² γᵢ²``,  ``z ← z + beta · g − (ΔZ + beta · ΔG) γ``,

    where ``lam`` is relative to each column, so that the answer does not depend on the scale of ``f``; where
    differences vanish or repeat, ``γ`` does too, and the step falls back to plain iteration.

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
        A :class:`~deq_jax.Solution`.

    Raises:
        TypeError: ``f(z0)`` has another structure, shape or dtype than ``z0``, or ``z0`` is not floating-point.
        ValueError: the leading axes of ``z0`` differ, or a setting is out of its range.

    Example:
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

    rows = m - 1

    def measured(z: Matrices, fz: Matrices) -> tuple[Matrices, Matrices]:
        dtype = accumulation_dtype(z)
        g = jax.tree.map(lambda a, b: b.astype(dtype) - a.astype(dtype), z, fz)
        if is_plain_mixing:
            return g, jax.tree.map(lambda b: b.astype(dtype), fz)
        return g, jax.tree.map(lambda a, b: a.astype(dtype) + beta * b, z, g)

    def like_state(target: Matrices, z: Matrices) -> Matrices:
        return jax.tree.map(lambda a, leaf: a.astype(leaf.dtype), target, z)

    def init(z0: Matrices) -> _History | None:
        if rows == 0:
            return None
        dtype = accumulation_dtype(z0)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), z0)
        ring = jax.tree.map(lambda leaf: jnp.zeros((leaf.shape[0], rows, leaf.shape[1]), dtype), z0)
        batch = jax.tree.leaves(z0)[0].shape[0]
        none = jnp.zeros(batch, jnp.int32)
        safeguard = _Safeguard(jnp.full(batch, lam, dtype), jnp.full(batch, jnp.inf, dtype), none, none)
        return _History(zeros, zeros, ring, ring, jnp.zeros((batch, rows, rows), dtype), safeguard)

    def update(z: Matrices, fz: Matrices, history: _History | None, k: Int[Array, ""]) -> tuple[Matrices, Any]:
        g, target = measured(z, fz)
        if history is None:
            return like_state(target, z), None
        slot = k % rows
        # Made once, as its own array: left to itself, the compiler computes it anew wherever it is read.
        dg = lax.optimization_barrier(_difference(g, history.residual, k))
        residuals = _push(history.residuals, dg, slot)
        targets = _push(history.targets, _difference(target, history.target, k), slot)
        gram = _replace(history.gram, _products(dg, residuals), slot)
        square = sample_dot(g, g)
        safeguard = _hold_back(history.safeguard, jnp.sqrt(square), lam)
        gamma, gain = jax.vmap(_coefficients)(gram, _products(g, residuals), square, safeguard.lam)
        waits = (k >= m) & (gain > GAIN) & (safeguard.plain < PLAIN_STEPS)
        gamma = jnp.where(waits[:, None], 0, gamma)
        safeguard = safeguard._replace(plain=jnp.where(waits, safeguard.plain + 1, 0))
        mixture = jax.tree.map(
            lambda leaf, ring: leaf - jnp.einsum("br,brn->bn", gamma, ring, precision=lax.Precision.HIGHEST),
            target,
            targets,
        )
        return like_state(mixture, z), _History(g, target, residuals, targets, gram, safeguard)

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


def _difference(new: Matrices, old: Matrices, k: Int[Array, ""]) -> Matrices:
    """``new − old``, and zero in the first evaluation, which has nothing before it."""
    return jax.tree.map(lambda a, b: jnp.where(k == 0, 0, a - b), new, old)


def _push(
    ring: PyTree[Float[Array, "batch rows _n"]], newest: Matrices, slot: Int[Array, ""]
) -> PyTree[Float[Array, "batch rows _n"]]:
    """Write ``newest`` over the oldest row, in place."""
    return jax.tree.map(lambda rows, row: lax.dynamic_update_slice_in_dim(rows, row[:, None], slot, 1), ring, newest)


def _products(g: Matrices, ring: PyTree[Float[Array, "batch rows _n"]]) -> Float[Array, "batch rows"]:
    """Inner products of ``g`` with every row, per sample, summed over all leaves."""
    pairs = zip(jax.tree.leaves(g), jax.tree.leaves(ring), strict=True)
    return functools.reduce(
        jnp.add, [jnp.einsum("bn,brn->br", row, rows, precision=lax.Precision.HIGHEST) for row, rows in pairs]
    )


def _replace(
    gram: Float[Array, "batch rows rows"], products: Float[Array, "batch rows"], slot: Int[Array, ""]
) -> Float[Array, "batch rows rows"]:
    """The Gram matrix after row ``slot`` of the ring has changed."""
    gram = lax.dynamic_update_slice_in_dim(gram, products[:, None, :], slot, 1)
    return lax.dynamic_update_slice_in_dim(gram, products[:, :, None], slot, 2)


def _coefficients(
    gram: Float[Array, "rows rows"], products: Float[Array, " rows"], square: Float[Array, ""], lam: Float[Array, ""]
) -> tuple[Float[Array, " rows"], Float[Array, ""]]:
    """One sample's ``γ``, from ``ΔGᵀ ΔG``, ``ΔGᵀ g`` and ``‖g‖²``; and ``‖g − ΔG γ‖ / ‖g‖``.

    The normal equations are scaled to a unit diagonal first: residuals shrink by orders of magnitude over a history,
    and would otherwise drown in the largest.
    """
    squares = jnp.diagonal(gram)
    scale = jnp.where(squares > 0, lax.rsqrt(jnp.where(squares > 0, squares, 1)), 0)
    normal = gram * scale[:, None] * scale[None, :]
    floor = (len(gram) + 1) * jnp.finfo(gram.dtype).eps
    normal = jnp.where(jnp.eye(len(gram), dtype=bool), 1 + jnp.maximum(lam, floor), normal)
    gamma = scale * jax.scipy.linalg.solve(normal, scale * products, assume_a="pos")
    gamma = jnp.where(jnp.all(jnp.isfinite(gamma)), gamma, 0)
    left = square - 2 * (gamma @ products) + gamma @ gram @ gamma
    return gamma, jnp.sqrt(jnp.maximum(left, 0) / jnp.where(square > 0, square, 1))
