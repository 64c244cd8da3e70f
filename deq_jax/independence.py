"""Are the samples of a state independent problems, as every solver takes them to be?"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from deq_jax.gradients.implicit_function import check_arguments
from deq_jax.states.per_sample import PerSample, check_marks, rows_of, unmarked
from deq_jax.states.trees import (
    batch_size,
    check_same_form,
    draw,
    flatten_samples,
    restore_samples,
    saying_what_it_is_given,
)


def check_independence(f: Callable[..., PyTree], z0: PyTree, *args: Any) -> None:
    """Raise a ValueError where ``f`` mixes the samples of a state, so that no solve by samples is right.

    Each sample is solved and judged on its own, and its status and gradients are right only where one sample of
    ``f(z)`` depends on the same sample of ``z``. What breaks that is a state without a batch axis, whose numbers are
    then taken for samples, and a normalisation over the batch. It is tried at a random state, by the derivative of
    each sample of ``f(z)``, which must be zero in all other samples of ``z``. For development, outside ``jax.jit``; it
    takes as many vector-Jacobian products as there are samples, so a small batch will do, but of more than one.

    Args:
        f: a cell, as for [`deq_jax.fixed_point`][].
        z0: a state of its form, a pytree of floating-point arrays ``[batch, ...]``. Its
            values matter only where ``f`` is not finite at a random state.
        *args: what ``f`` depends on besides.

    Raises:
        TypeError: ``f(z0, *args)`` has another structure, shape or dtype than ``z0``, ``z0`` is not floating-point, or
            ``args`` hold something that is no array.
        ValueError: the leading axes of ``z0`` differ, ``f`` is not finite at ``z0`` either, or samples mix.

    Examples:
        >>> import jax.numpy as jnp
        >>> check_independence(lambda z: jnp.tanh(z @ jnp.ones((3, 3))), jnp.zeros((2, 3)))
        >>> check_independence(lambda z: jnp.tanh(jnp.ones((3, 3)) @ z), jnp.zeros(3))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: f mixes samples: sample 0 of f(z) depends on samples 1, 2 of z...

    Source: this library's; the batch axis is that of [`deq_jax.fixed_point`][].
    """
    batch = batch_size(z0)
    check_arguments(args)
    check_marks(args, batch)
    marked, args = args, unmarked(args)
    z0 = jax.tree.map(jnp.asarray, z0)
    z, pull_back = _differentiable(lambda z: f(z, *args), z0)
    # Signs, so that nothing cancels, and as many pull-backs as samples: any of them may be the one that mixes.
    signs = flatten_samples(draw(jax.random.rademacher, jax.random.key(1), z))
    for sample in range(batch):
        alone = jax.tree.map(lambda leaf, sample=sample: jnp.zeros_like(leaf).at[sample].set(leaf[sample]), signs)
        gradient = flatten_samples(pull_back(restore_samples(alone, z)))
        reached = functools.reduce(np.logical_or, [np.any(leaf != 0, axis=1) for leaf in jax.tree.leaves(gradient)])
        others = [str(other) for other in np.flatnonzero(reached) if other != sample]
        if others:
            raise ValueError(
                f"f mixes samples: sample {sample} of f(z) depends on sample{'s' * (len(others) > 1)} "
                f"{', '.join(others)} of z, whose leaves are {jax.tree.map(jnp.shape, z0)}. The leading axis of every "
                "leaf is the batch, and its samples are solved apart. Where z is one problem and no batch, say "
                "batched=False, in fixed_point or in the solver; parts that depend on one another are one sample."
            )
    if any(isinstance(arg, PerSample) for arg in marked):
        _check_rows(f, z, marked)


def _check_rows(f: Callable[..., PyTree], z: PyTree, marked: tuple) -> None:
    """Raise a ValueError where two samples by themselves have another ``f(z)`` than among the others."""
    marks, args = tuple(isinstance(arg, PerSample) for arg in marked), unmarked(marked)
    whole = flatten_samples(f(z, *args))
    rows = jnp.array([0, batch_size(z) - 1])
    few = flatten_samples(f(jax.tree.map(lambda leaf: leaf[rows], z), *rows_of(args, marks, rows)))
    for alone, among in zip(jax.tree.leaves(few), jax.tree.leaves(whole), strict=True):
        rounding = float(jnp.finfo(among.dtype).eps) ** 0.5
        if not np.allclose(alone, among[rows], rtol=rounding, atol=rounding * float(jnp.abs(among).max())):
            raise ValueError(
                "what per_sample marks is not all that belongs to samples: for the first and the last sample alone, "
                "with their rows of it, f(z) is another than among the others. Mark every argument whose rows belong "
                "to samples, and close over none."
            )


def _differentiable(f: Callable[[PyTree], PyTree], z0: PyTree) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """A state at which ``f`` and its derivative are finite, and its pull-back there.

    A random one, at which no derivative is zero by chance; ``z0`` itself where ``f`` is not finite there.
    """
    for z in (draw(jax.random.normal, jax.random.key(0), z0), z0):
        fz, pull_back = jax.vjp(saying_what_it_is_given(f, z0), z)
        check_same_form(fz, z0)
        (gradient,) = pull_back(jax.tree.map(jnp.ones_like, fz))
        if all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((fz, gradient))):
            return z, jax.jit(lambda g, pull_back=pull_back: pull_back(g)[0])
    raise ValueError("f or its derivative is finite neither at a random state nor at z0. Give a z0 where they are.")
