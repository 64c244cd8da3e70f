"""Anderson acceleration: the next iterate is a least-squares mixture of the last ``m``."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from deq_jax.calls import advised_solver
from deq_jax.settings import Scalar, check_positive, whole_number
from deq_jax.solution import Solution
from deq_jax.solvers.linear_system import finite_or_zero, quadratic, solve_positive
from deq_jax.solvers.loop import Rule, solve
from deq_jax.solvers.memory import aged, forgotten, remembered
from deq_jax.solvers.safeguard import GAIN, Safeguard, hold_back, nothing_seen, widen
from deq_jax.states.coupled import whole_sum
from deq_jax.states.made_once import made_once
from deq_jax.states.trees import Matrices, accumulation_dtype, sample_difference, sample_dot


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
    since: Int[Array, " batch"]
    """Evaluations that the sample remembers."""
    safeguard: Safeguard


@advised_solver
def anderson(
    f: Callable[[PyTree], PyTree],
    z0: PyTree,
    *,
    m: int = 5,
    lam: Scalar = 1e-4,
    beta: Scalar = 1.0,
    tol: Scalar = 1e-2,
    max_iter: int = 50,
    atol: Scalar = 0.0,
    trace: bool = False,
    batched: bool = True,
) -> Solution:
    r"""Solve ``z = f(z)`` by Anderson acceleration, each sample on its own.

    With ``gᵢ = f(zᵢ) − zᵢ``, the next iterate is the mixture ``Σ αᵢ (zᵢ + beta · gᵢ)`` of the last ``m`` iterates whose
    coefficients minimise ``‖Σ αᵢ gᵢ‖₂`` subject to ``Σ αᵢ = 1``. The problem is solved without its constraint, in the
    differences of successive iterates,

    $$\gamma = \operatorname*{argmin}_\gamma
    \|g - \Delta G\,\gamma\|_2^2 + \lambda \sum_i \|\Delta g_i\|_2^2\,\gamma_i^2,$$

    $$z \leftarrow z + \beta\,g - (\Delta Z + \beta\,\Delta G)\,\gamma,$$

    where ``λ``, here ``lam``, is relative to each column, so that the answer does not depend on the scale of ``f``,
    while squares of residuals are in the dtype's range; where differences vanish or repeat, ``γ`` does too, and the
    step falls back to plain iteration.

    Two safeguards, per sample. Where a full history promises to remove less than 30% of the residual, one or two plain
    steps come first, to widen what the history spans. Where the residual has made no progress for a while, ``lam``
    rises, which turns the mixture into plain iteration, and falls again as the residual does; mixtures and plain
    iteration then take turns that double in length until one of them makes progress.

    Args:
        f: maps a state to a state of the same structure, shapes and dtypes, each sample on its own.
        z0: where to start; a pytree of floating-point arrays ``[batch, ...]``.
        m: iterates in the mixture, at least 1; 1 is forward iteration, damped by ``beta``.
        lam: relative regularisation of the least squares, at least 0.
        beta: the share of the residual that is added to the mixture, positive: below 1 damps, above 1 over-projects.
        tol: relative residual ``‖f(z) − z‖₂ / ‖f(z)‖₂`` at which a sample has converged.
        max_iter: evaluations of ``f`` at most.
        atol: ``‖f(z) − z‖₂`` at which a sample has converged, too, at least 0: for equilibria near zero.
        trace: whether to record the residual of every evaluation.
        batched: False where ``z0`` is one problem, of leaves of any shapes, and no batch; the solution has no
            batch axis then.

    Returns:
        A [`deq_jax.Solution`][] without a derivative, NaN in forward mode: that is [`deq_jax.fixed_point`][]'s.

    Raises:
        TypeError: ``f(z0)`` has another structure, shape or dtype than ``z0``, ``z0`` is not floating-point, or the
            solution is differentiated in reverse mode.
        ValueError: the leading axes of ``z0`` differ, or a setting is out of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> sol = anderson(lambda z: jnp.cos(z), jnp.zeros((1, 1)), tol=1e-6)
        >>> print(f"{sol.value[0, 0]:.5f}", sol.status)
        0.73909 [0]

    Source: Walker and Ni, "Anderson acceleration for fixed-point iterations", 2011, equations 2.1 to 2.3; plain steps
    in between: Banerjee et al., "Periodic Pulay method", 2016; the chapter, "Implementation of the forward pass".
    """
    m = min(whole_number("m", m), whole_number("max_iter", max_iter))  # more could never be in use
    check_positive("beta", beta)
    check_positive("lam", lam, or_zero=True)
    is_plain_mixing = isinstance(beta, int | float) and beta == 1

    rows = m - 1

    def mixed(z: Matrices, fz: Matrices) -> tuple[Matrices, Matrices]:
        """``g`` and ``z + beta · g``."""
        dtype = accumulation_dtype(z)
        g = sample_difference(fz, z)
        if is_plain_mixing:
            return g, jax.tree.map(lambda b: b.astype(dtype), fz)
        return g, jax.tree.map(lambda a, b: a.astype(dtype) + jnp.asarray(beta).astype(dtype) * b, z, g)

    def like_state(target: Matrices, z: Matrices) -> Matrices:
        return jax.tree.map(lambda a, leaf: a.astype(leaf.dtype), target, z)

    def plain(z: Matrices, fz: Matrices) -> Matrices:
        return like_state(mixed(z, fz)[1], z)

    def init(z0: Matrices) -> _History:
        dtype = accumulation_dtype(z0)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), z0)
        ring = jax.tree.map(lambda leaf: jnp.zeros((leaf.shape[0], rows, leaf.shape[1]), dtype), z0)
        batch = jax.tree.leaves(z0)[0].shape[0]
        gram, none = jnp.zeros((batch, rows, rows), dtype), jnp.zeros((batch,), jnp.int32)
        return _History(zeros, zeros, ring, ring, gram, none, nothing_seen(batch, lam, dtype))

    def forget(history: _History, samples: Bool[Array, " batch"]) -> _History:
        afresh = nothing_seen(samples.shape[0], lam, history.gram.dtype)
        safeguard = Safeguard(*(jnp.where(samples, a, b) for a, b in zip(afresh, history.safeguard, strict=True)))
        return history._replace(since=forgotten(history.since, samples), safeguard=safeguard)

    def update(z: Matrices, fz: Matrices, history: _History, k: Int[Array, ""]) -> tuple[Matrices, _History]:
        g, target = mixed(z, fz)
        since, slot = aged(history.since), k % rows
        # Made once, as its own array: left to itself, the compiler computes it anew wherever it is read.
        dg = made_once(_difference(g, history.residual, since))
        residuals = _push(history.residuals, dg, slot)
        targets = _push(history.targets, _difference(target, history.target, since), slot)
        gram = _replace(history.gram, _products(dg, residuals), slot)
        square = sample_dot(g, g)
        safeguard = hold_back(history.safeguard, jnp.sqrt(square), lam)
        known = remembered(since, slot, rows)
        # The barriers keep the compiler from working the small system out anew in each place that reads a weight.
        system = made_once((gram, _products(g, residuals), known, square, safeguard.lam))
        gamma, gain = made_once(jax.vmap(_coefficients)(*system))
        waits, safeguard = widen(safeguard, (since > m) & (gain > GAIN))
        gamma = jnp.where(waits[:, None], 0, gamma)
        mixture = jax.tree.map(
            lambda leaf, ring: leaf - jnp.einsum("br,brn->bn", gamma, ring, precision=lax.Precision.HIGHEST),
            target,
            targets,
        )
        return like_state(mixture, z), _History(g, target, residuals, targets, gram, since, safeguard)

    if rows == 0:
        rule = Rule(lambda z0: (), lambda z, fz, state, k: (plain(z, fz), state))
    else:
        rule = Rule(init, update, forget, plain)
    return solve(rule, f, z0, tol=tol, max_iter=max_iter, atol=atol, trace=trace, batched=batched)


def _difference(new: Matrices, old: Matrices, since: Int[Array, " batch"]) -> Matrices:
    """``new − old``, and zero in evaluations that have nothing before them to remember."""
    return jax.tree.map(lambda a, b: jnp.where(since[:, None] > 1, a - b, 0), new, old)


def _push(
    ring: PyTree[Float[Array, "batch rows _n"]], newest: Matrices, slot: Int[Array, ""]
) -> PyTree[Float[Array, "batch rows _n"]]:
    """Write ``newest`` over the oldest row, in place."""
    return jax.tree.map(lambda rows, row: lax.dynamic_update_slice_in_dim(rows, row[:, None], slot, 1), ring, newest)


def _products(g: Matrices, ring: PyTree[Float[Array, "batch rows _n"]]) -> Float[Array, "batch rows"]:
    """Inner products of ``g`` with every row, per sample, summed over all leaves."""
    pairs = zip(jax.tree.leaves(g), jax.tree.leaves(ring), strict=True)
    return whole_sum(
        functools.reduce(
            jnp.add, [jnp.einsum("bn,brn->br", row, rows, precision=lax.Precision.HIGHEST) for row, rows in pairs]
        )
    )


def _replace(
    gram: Float[Array, "batch rows rows"], products: Float[Array, "batch rows"], slot: Int[Array, ""]
) -> Float[Array, "batch rows rows"]:
    """The Gram matrix after row ``slot`` of the ring has changed."""
    is_slot = jnp.arange(gram.shape[1], dtype=slot.dtype) == slot
    gram = jnp.where(is_slot[:, None], products[:, None, :], gram)
    return jnp.where(is_slot, products[:, :, None], gram)


def _coefficients(
    gram: Float[Array, "rows rows"],
    products: Float[Array, " rows"],
    known: Bool[Array, " rows"],
    square: Float[Array, ""],
    lam: Float[Array, ""],
) -> tuple[Float[Array, " rows"], Float[Array, ""]]:
    """One sample's ``γ``, from ``ΔGᵀ ΔG``, ``ΔGᵀ g``, which rows it knows, and ``‖g‖²``; and ``‖g − ΔG γ‖ / ‖g‖``.

    The normal equations are scaled to a unit diagonal first: residuals shrink by orders of magnitude over a history,
    and would otherwise drown in the largest.
    """
    gram = jnp.where(known[:, None] & known[None, :], gram, 0)
    products = jnp.where(known, products, 0)
    squares = jnp.diagonal(gram)
    scale = jnp.where(squares > 0, lax.rsqrt(jnp.where(squares > 0, squares, 1)), 0)
    normal = gram * scale[:, None] * scale[None, :]
    floor = (len(gram) + 1) * jnp.finfo(gram.dtype).eps
    normal = jnp.where(jnp.eye(len(gram), dtype=bool), 1 + jnp.maximum(lam, floor), normal)
    gamma = finite_or_zero(scale * solve_positive(normal, scale * products))
    left = square + quadratic(gram, products, gamma)
    return gamma, jnp.sqrt(jnp.maximum(left, 0) / jnp.where(square > 0, square, 1))
