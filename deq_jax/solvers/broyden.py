"""Broyden's method: a quasi-Newton step, from what the last ``m`` steps taught about the Jacobian."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from deq_jax.calls import advised_solver
from deq_jax.settings import Scalar, whole_number
from deq_jax.solution import Solution
from deq_jax.solvers.loop import Rule, solve
from deq_jax.solvers.memory import aged, forgotten, remembered
from deq_jax.states.coupled import whole_sum
from deq_jax.states.trees import Matrices, accumulation_dtype, sample_difference, sample_dot, sample_where


class _Estimate(NamedTuple):
    """The last step, and the inverse Jacobian of ``g(z) = f(z) − z`` as ``B = −I + Σ uᵢ vᵢᵀ``."""

    z: Matrices
    g: Matrices
    u: PyTree[Float[Array, "batch m _n"]]
    v: PyTree[Float[Array, "batch m _n"]]
    since: Int[Array, " batch"]
    """Evaluations that the sample remembers."""


@advised_solver
def broyden(
    f: Callable[[PyTree], PyTree],
    z0: PyTree,
    *,
    m: int = 10,
    tol: Scalar = 1e-2,
    max_iter: int = 50,
    atol: Scalar = 0.0,
    trace: bool = False,
    batched: bool = True,
) -> Solution:
    r"""Solve ``z = f(z)`` by Broyden's (good) method with limited memory, each sample on its own.

    With ``g(z) = f(z) − z`` and ``B`` an estimate of its inverse Jacobian, ``z ← z − B g(z)``. It starts from
    ``B = −I``, forward iteration, and after each step ``Δz``, which changed ``g`` by ``Δg``, is updated by rank one,

    $$B \leftarrow B + \frac{(\Delta z - B\,\Delta g)\,(\Delta z^\top B)}{\Delta z^\top B\,\Delta g},$$

    which makes ``B Δg = Δz`` by the smallest change of ``B⁻¹``, the estimate of the Jacobian. After ``m`` updates it
    starts afresh from ``−I``. An update whose denominator vanishes is left out.

    Args:
        f: maps a state to a state of the same structure, shapes and dtypes, each sample on its own.
        z0: where to start; a pytree of floating-point arrays ``[batch, ...]``.
        m: updates kept, at least 1; memory is that of ``2 m`` states.
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
        >>> sol = broyden(lambda z: jnp.cos(z), jnp.zeros((1, 1)), tol=1e-6)
        >>> print(f"{sol.value[0, 0]:.5f}", sol.status)
        0.73909 [0]

    Source: Broyden, "A class of methods for solving nonlinear simultaneous equations", 1965; with limited memory for
    equilibria: Bai et al., "Multiscale deep equilibrium models", 2020, section 3.
    """
    m = min(whole_number("m", m), whole_number("max_iter", max_iter))  # more could never be in use

    def init(z0: Matrices) -> _Estimate:
        dtype = accumulation_dtype(z0)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), z0)
        rows = jax.tree.map(lambda leaf: jnp.zeros((leaf.shape[0], m, leaf.shape[1]), dtype), z0)
        none = jnp.zeros(jax.tree.leaves(z0)[0].shape[:1], jnp.int32)
        return _Estimate(zeros, zeros, rows, rows, none)

    def forget(seen: _Estimate, samples: Bool[Array, " batch"]) -> _Estimate:
        return seen._replace(since=forgotten(seen.since, samples))

    def update(z: Matrices, fz: Matrices, seen: _Estimate, k: Int[Array, ""]) -> tuple[Matrices, _Estimate]:
        dtype = accumulation_dtype(z)
        wide = jax.tree.map(lambda leaf: leaf.astype(dtype), z)
        g = sample_difference(fz, z)
        since, slot = aged(seen.since), (k - 1) % m
        # The update that this step brings is the first, …, or the last of a round of m, each sample's its own.
        in_round = jnp.where(since > 1, (since - 2) % m + 2, since)
        known = remembered(in_round, slot, m)
        u, v = _learn(seen, wide, g, slot, known & (jnp.arange(m, dtype=slot.dtype) != slot)[None])
        step = _apply(u, v, known, g)
        proposed = jax.tree.map(lambda a, d, leaf: (a - d).astype(leaf.dtype), wide, step, z)
        return proposed, _Estimate(wide, g, u, v, since)

    return solve(Rule(init, update, forget), f, z0, tol=tol, max_iter=max_iter, atol=atol, trace=trace, batched=batched)


def _learn(
    seen: _Estimate, z: Matrices, g: Matrices, slot: Int[Array, ""], known: Array
) -> tuple[PyTree[Float[Array, "batch m _n"]], PyTree[Float[Array, "batch m _n"]]]:
    """``u`` and ``v`` with the update of the last step written to ``slot``."""
    dz = jax.tree.map(jnp.subtract, z, seen.z)
    b_dg = _apply(seen.u, seen.v, known, jax.tree.map(jnp.subtract, g, seen.g))
    dz_b = _apply(seen.v, seen.u, known, dz)
    denominator = sample_dot(dz, b_dg)
    # The cosine between the two: below rounding it has no direction to offer.
    size = jnp.sqrt(sample_dot(dz, dz)) * jnp.sqrt(sample_dot(b_dg, b_dg))  # their product may overflow
    usable = jnp.abs(denominator) > 10 * jnp.finfo(denominator.dtype).eps * size
    divisor = jnp.where(usable, denominator, 1)
    new_u = jax.tree.map(lambda a, b: (a - b) / divisor[:, None], dz, b_dg)
    nothing = jax.tree.map(jnp.zeros_like, dz)

    def write(rows: PyTree, row: Matrices) -> PyTree:
        return jax.tree.map(
            lambda all_rows, one: lax.dynamic_update_slice_in_dim(all_rows, one[:, None], slot, axis=1),
            rows,
            sample_where(usable, row, nothing),
        )

    return write(seen.u, new_u), write(seen.v, dz_b)


def _apply(u: PyTree, v: PyTree, known: Array, x: Matrices) -> Matrices:
    """``B x = −x + Σ uᵢ ⟨vᵢ, x⟩`` over the known rows; with ``u`` and ``v`` exchanged, ``Bᵀ x``."""
    highest = lax.Precision.HIGHEST
    products = [
        jnp.einsum("bmn,bn->bm", rows, leaf, precision=highest)
        for rows, leaf in zip(jax.tree.leaves(v), jax.tree.leaves(x), strict=True)
    ]
    weights = jnp.where(known, whole_sum(sum(products[1:], products[0])), 0)
    return jax.tree.map(lambda rows, leaf: jnp.einsum("bm,bmn->bn", weights, rows, precision=highest) - leaf, u, x)
