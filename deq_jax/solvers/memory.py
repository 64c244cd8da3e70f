"""Which rows of a ring hold what a sample may still remember."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def aged(since: Int[Array, " batch"]) -> Int[Array, " batch"]:
    """Evaluations that a sample remembers, with one more: the first has nothing before it."""
    return since + 1


def forgotten(since: Int[Array, " batch"], samples: Bool[Array, " batch"]) -> Int[Array, " batch"]:
    """Such that ``aged`` is 0 in the update that follows, whose evaluation is forgotten, too."""
    return jnp.where(samples, -1, since)


def remembered(since: Int[Array, " batch"], slot: Int[Array, ""], rows: int) -> Bool[Array, "batch rows"]:
    """The rows that hold a difference of two remembered evaluations, ``slot`` being the newest."""
    age = (slot - jnp.arange(rows, dtype=slot.dtype)) % rows
    return age[None] < since[:, None] - 1
