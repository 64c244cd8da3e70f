"""One problem as a batch of one: what ``batched=False`` means, everywhere."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from deq_jax.solution import Solution
from deq_jax.states.trees import matched


def batch_of_one(f: Callable[..., PyTree], z0: PyTree, *args: Any) -> tuple[Callable[..., PyTree], PyTree]:
    """``f`` and ``z0`` of one problem, whose leaves have any shapes, as those of a batch of one.

    Raises:
        TypeError: ``f(z0, *args)`` has another structure, shape or dtype than ``z0``, or ``z0`` is not floating-point.
    """
    f, z0 = matched(f, z0, *args, batched=False)
    return lambda z, *args: with_axis(f(without_axis(z), *args)), with_axis(z0)


def with_axis(tree: PyTree) -> PyTree:
    """Every leaf with a batch axis of one."""
    return jax.tree.map(lambda leaf: leaf[None], tree)


def without_axis(tree: PyTree) -> PyTree:
    """Every leaf without its batch axis of one."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def only_problem(solution: Solution) -> Solution:
    """The solution of a batch of one as that of its problem: scalars, and a trace ``[max_iter]``."""
    trace = None if solution.trace is None else solution.trace[:, 0]
    return without_axis(solution._replace(trace=None))._replace(trace=trace)
