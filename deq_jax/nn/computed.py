"""What ordinary layers have made, in the form of a solution."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from deq_jax.fixed_point import unrolled
from deq_jax.solution import Solution, Status


def computed(z: PyTree, evaluations: int) -> Solution:
    """The state ``z``, of leaves ``[batch, ...]``, after so many evaluations, whose residual nobody has measured."""
    batch = jax.tree.leaves(z)[0].shape[0]
    return Solution(
        z,
        jnp.full((batch,), jnp.inf, jnp.float32),
        jnp.full((batch,), evaluations, jnp.int32),
        jnp.full((batch,), Status.CONVERGED, jnp.int8),
    )


def repeated(f: Callable[..., PyTree], z0: PyTree, *args: PyTree, times: int) -> Solution:
    """``f`` applied so many times, differentiated by backpropagation: see [`deq_jax.unrolled`][]."""
    return computed(unrolled(f, z0, *args, steps=times), times)
