"""When a sample gives up what its rule made of it: it goes back and takes plain steps, for a while.

A mixture that overshoots is the rule's fault, not the map's. So divergence is the last word and not the first: only
what plain steps from the best iterate cannot hold either has diverged. Every other time the sample goes back to where
it started, since a small residual may lie far from any equilibrium, on a plateau. As the plain steps grow in number
without bound, what plain iteration solves is solved in the end.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from deq_jax.states.trees import Batch

REACH = 8.0
"""An ``‖f(z)‖`` beyond this multiple of what plain steps could have reached was made by the rule."""
PROOF = 0.1
"""There, only a residual below this share of the smallest one before shows that the rule was right."""
ROUNDING = 4.0
"""Units of rounding of ``f(z)`` below which ``‖f(z) − z‖`` says nothing."""
STRAY = 24
"""Evaluations out there, without such a proof and without progress, after which the sample goes back."""
PROGRESS = 0.99
"""A residual below this share of the one that last counted as progress counts as progress."""
BLOWN = 1e4
"""A residual that grows by this factor in one evaluation was made by the rule: the sample goes back at once."""
STAGNANT = 10.0
"""A residual beyond this multiple of the best one is not stagnating: it may have to grow before it falls."""
STALL = 64
"""Stagnating evaluations after which the sample goes back; twice as many after each return."""
HOLD = 16
"""Plain steps after the first return; twice as many after each further one."""


class Fallback(NamedTuple):
    """What decides, per sample, whether an iterate is believed and whether the sample goes back."""

    best: Float[Array, " batch"]
    """``‖f(z) − z‖`` of the best iterate: the smallest believed one."""
    mark: Float[Array, " batch"]
    """The ``‖f(z) − z‖`` that last counted as progress."""
    last: Float[Array, " batch"]
    """The ``‖f(z) − z‖`` of the evaluation before."""
    walked: Float[Array, " batch"]
    """The largest ``‖f(z)‖`` that steps of these lengths could have led to from where the sample was last believed."""
    walked_to_best: Float[Array, " batch"]
    """The same when the best iterate was found: where a sample that goes back starts from."""
    strayed: Int[Array, " batch"]
    """Evaluations since an iterate was last believed, or its residual the smallest of all."""
    stalled: Int[Array, " batch"]
    """Evaluations since the last progress."""
    returns: Int[Array, " batch"]
    """How often the sample went back."""
    plain: Int[Array, " batch"]
    """Plain steps that it still has to take."""


def nothing_judged(batch: Batch, dtype: Any) -> Fallback:
    """Before the first evaluation."""
    none, unknown = jnp.zeros((batch,), jnp.int32), jnp.full((batch,), jnp.inf, dtype)
    nowhere = jnp.zeros((batch,), dtype)
    return Fallback(unknown, unknown, unknown, nowhere, nowhere, none, none, none, none)


def judge(
    seen: Fallback, step: Float[Array, " batch"], size: Float[Array, " batch"], eps: float
) -> tuple[Bool[Array, " batch"], Bool[Array, " batch"], Bool[Array, " batch"], Bool[Array, " batch"], Fallback]:
    """Which samples are believed, which better than before, which go back, and which of these to where they started.

    By ``‖f(z) − z‖``, which is ``step``, and ``‖f(z)‖``, ``size``.

    A relative residual is small where ``f(z)`` is large, whether or not an equilibrium is near: extrapolation along a
    direction in which ``f(z) − z`` hardly changes ends there. Plain steps never leave the ball that their own lengths
    span, so that within it nothing is in question; beyond it an iterate is believed when its residual is much smaller
    than all before, and not for being rounded away, in units of ``eps``.

    Which iterate is best, ``‖f(z) − z‖`` says itself, and not in relation to ``‖f(z)‖``: near a zero equilibrium all
    relative residuals are alike.
    """
    turn = 2 ** jnp.minimum(seen.returns, 12)
    finite = jnp.isfinite(step) & jnp.isfinite(size)
    within = size <= REACH * (seen.walked + step)
    first = jnp.isinf(seen.best)
    proven = jnp.maximum(step, ROUNDING * eps * size) <= PROOF * seen.best
    believed = finite & (within | first | proven | (seen.plain > 0))
    better = believed & (step <= seen.best)
    progress = finite & (step < PROGRESS * seen.mark)
    strayed = jnp.where(believed | progress, 0, seen.strayed + 1)
    stalled = jnp.where(progress, 0, seen.stalled + (step < STAGNANT * seen.best).astype(jnp.int32))
    lost = ~finite | (step > BLOWN * seen.last) | (strayed > STRAY) | (stalled > STALL * turn)
    # What plain steps lead to before they are done is not the rule's doing.
    returns = ~first & (seen.plain == 0) & lost
    # Far out, a residual that keeps falling is evidence, too: half of it lets the sample go twice as far.
    farther = jnp.where(progress, (seen.walked + step) * (seen.mark / jnp.where(step > 0, step, 1)), seen.walked)
    # Nor does it go twice as far for free each time: only where it is sure to be has it walked there.
    arrived = first | proven | (seen.plain > 0)
    walked = jnp.where(believed, jnp.where(arrived, jnp.maximum(seen.walked, size), seen.walked) + step, farther)
    return (
        believed,
        better,
        returns,
        returns & (seen.returns % 2 == 1),
        Fallback(
            jnp.where(better, step, seen.best),
            jnp.where(progress, step, seen.mark),
            step,
            jnp.where(returns, seen.walked_to_best, walked),
            jnp.where(better, walked, seen.walked_to_best),
            jnp.where(returns, 0, strayed),
            jnp.where(returns, 0, stalled),
            seen.returns + returns.astype(jnp.int32),
            # The evaluation of where it goes back to comes first, and takes none.
            jnp.where(returns, HOLD * turn**2, jnp.maximum(seen.plain - 1, 0)),
        ),
    )
