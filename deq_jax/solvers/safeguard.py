"""When Anderson acceleration is held back: what a mixture may not be trusted with, decided per sample."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from deq_jax.settings import Scalar
from deq_jax.states.trees import Batch

GAIN = 0.7
"""A mixture that is predicted to leave more than this share of ``‖g‖`` waits for plain steps to widen the history."""
PLAIN_STEPS = 2
"""Plain steps in a row at most."""
PROGRESS = 0.9
"""A residual below this share of the one that last counted as progress counts as progress."""
PATIENCE = 4
"""Evaluations without progress after which plain iteration gets a trial; twice as many after each failed one."""
TRIAL = 30
"""Evaluations that a trial takes at most without progress; twice as many after each failed one."""
GROWTH = 100.0
"""A residual grown by this factor fails a trial at once, as plain iteration diverges; its square the second time."""


class Safeguard(NamedTuple):
    """What decides, per sample, how far the mixture is held back towards plain iteration."""

    lam: Float[Array, " batch"]
    """The regularisation in force, at least the user's."""
    best: Float[Array, " batch"]
    """The smallest ``‖g‖``, or the one at which it last exploded."""
    mark: Float[Array, " batch"]
    """The ``‖g‖`` that last counted as progress."""
    stalled: Int[Array, " batch"]
    """Evaluations since then."""
    failed: Int[Array, " batch"]
    """Trials of plain iteration that came to nothing."""
    plain: Int[Array, " batch"]
    """Plain steps taken in a row."""


def nothing_seen(batch: Batch, lam: Scalar, dtype: Any) -> Safeguard:
    """Before the first evaluation."""
    none, unknown = jnp.zeros((batch,), jnp.int32), jnp.full((batch,), jnp.inf, dtype)
    return Safeguard(jnp.full((batch,), lam, dtype), unknown, unknown, none, none, none)


def hold_back(seen: Safeguard, norm: Float[Array, " batch"], lam: Scalar) -> Safeguard:
    """Give plain iteration a trial where ``‖g‖`` stalls: raise the regularisation, and lower it as ``‖g‖`` improves.

    Plain iteration gets out of cycles that mixtures run into, but may first let ``‖g‖`` grow for long, or diverge:
    nothing seen so far tells which. So the two take turns that double in length, and the better one gets its way within
    a fixed multiple of the evaluations that it needs alone. An improvement too small to count as progress still ends
    plain steps: where mixtures crawl, plain iteration mostly crawls more.
    """
    improved, progress = norm < seen.best, norm < PROGRESS * seen.mark
    stalled = jnp.where(progress, 0, seen.stalled + 1)
    turns = 2**seen.failed
    exploded = norm > GROWTH ** (1 + seen.failed).astype(norm.dtype) * seen.best
    fails = exploded | (stalled > (PATIENCE + TRIAL) * turns)
    higher = jnp.where(stalled > PATIENCE * turns, jnp.clip(1e4 * seen.lam, 1e-8, 1e3), seen.lam)
    lam_next = jnp.where(improved, jnp.maximum(seen.lam / 10, lam), higher)
    return Safeguard(
        jnp.where(fails, lam, lam_next).astype(seen.lam.dtype),
        jnp.where(improved | exploded, norm, seen.best),
        jnp.where(progress | exploded, norm, seen.mark),
        jnp.where(fails, 0, stalled),
        seen.failed + fails.astype(jnp.int32),
        seen.plain,
    )


def widen(seen: Safeguard, poor: Bool[Array, " batch"]) -> tuple[Bool[Array, " batch"], Safeguard]:
    """Whose mixture, ``poor`` as it is predicted to be, waits for a plain step now: for a few in a row at most."""
    waits = poor & (seen.plain < PLAIN_STEPS)
    return waits, seen._replace(plain=jnp.where(waits, seen.plain + 1, 0))
