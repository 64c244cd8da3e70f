"""Are the samples of a state independent problems, as every solver takes them to be?"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from deq_jax.implicit_function import check_arguments
from deq_jax.trees import batch_size, check_same_form, draw, evaluating


def check_independence(f: Callable[..., PyTree], z0: PyTree, *args: Any) -> None:
    """Raise a ValueError where ``f`` mixes the samples of a state, so that no solve by samples is right.

    Each sample is solved and judged on its own, and its statuses and gradients are right only where one sample of
    ``f(z)`` depends on the same sample of ``z``. What breaks that is a state without a batch axis, whose numbers are
    then taken for samples, and a normalisation over the batch. It is tried at a random state, by the derivative of the
    first sample of ``f(z)``, which must be zero in all other samples of ``z``. For development, outside ``jax.jit``; a
    batch of 1 has nothing to mix.

    Args:
        f: a cell, as for [`deq_jax.fixed_point`][].
        z0: a state of its form, a pytree of floating-point arrays ``[batch, ...]``; its values do not matter.
        *args: what ``f`` depends on besides.

    Raises:
        TypeError: ``f(z0, *args)`` has another structure, shape or dtype than ``z0``, ``z0`` is not floating-point, or
            ``args`` hold something that is no array.
        ValueError: the leading axes of ``z0`` differ, or samples mix.

    Examples:
        >>> import jax.numpy as jnp
        >>> check_independence(lambda z: jnp.tanh(z @ jnp.ones((3, 3))), jnp.zeros((2, 3)))
        >>> check_independence(lambda z: jnp.tanh(jnp.ones((3, 3)) @ z), jnp.zeros(3))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: f mixes samples: sample 0 of f(z) depends on samples 1, 2 of z...

    Source: this library's; the batch axis is that of [`deq_jax.fixed_point`][].
    """
    batch_size(z0)
    check_arguments(args)
    z = draw(jax.random.normal, jax.random.key(0), z0)
    with evaluating(z0):
        fz, pull_back = jax.vjp(lambda z: f(z, *args), z)
    check_same_form(fz, z0)
    leaves, structure = jax.tree.flatten(draw(jax.random.normal, jax.random.key(1), z0))
    first = jax.tree.unflatten(structure, [leaf.at[1:].set(0) for leaf in leaves])
    (gradient,) = pull_back(first)
    reached = np.logical_or.reduce(
        [np.any(np.asarray(leaf).reshape(len(leaf), -1) != 0, axis=1) for leaf in jax.tree.leaves(gradient)]
    )
    others = [str(sample) for sample in np.flatnonzero(reached) if sample > 0]
    if others:
        raise ValueError(
            f"f mixes samples: sample 0 of f(z) depends on samples {', '.join(others)} of z, whose leaves are "
            f"{jax.tree.map(jnp.shape, z0)}. The leading axis of every leaf is the batch, and its samples are solved "
            "apart: one sample is a batch of 1, z0[None], and parts that depend on one another are one sample."
        )
