"""Devices that hold parts of one sample, as where a cell multiplies by a matrix of which each has some rows.

Within ``jax.shard_map`` every device runs its own loop. A cell that communicates over a mesh axis needs the others
along it in every evaluation, so that all must take the same decisions: what a solve sums over a sample, norms and inner
products, it then sums over those devices, too.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, PyTree

from deq_jax.states.varying import varying_axes, varying_over

_AXES: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("axes", default=())


def axes_within(f: Callable[[PyTree], PyTree], z: PyTree) -> tuple[str, ...]:
    """The mesh axes over which ``f`` communicates, and over which the state differs; none outside ``shard_map``.

    Where all devices along an axis have the same state, they decide alike as it is.
    """
    manual = jax.sharding.get_abstract_mesh().manual_axes
    if not manual:
        return ()
    used = _communicated(jax.make_jaxpr(f)(z).jaxpr)
    # With check_vma=False JAX does not tell what differs: a relative residual is then right in both cases.
    return tuple(axis for axis in manual if axis in used and (axis in varying_axes(z) or not _is_told(axis)))


@contextlib.contextmanager
def summed_over(axes: tuple[str, ...]) -> Iterator[None]:
    """What is traced within sums over these mesh axes, too, wherever it sums over a sample."""
    before = _AXES.set(axes)
    try:
        yield
    finally:
        _AXES.reset(before)


def axes_of_a_sample() -> tuple[str, ...]:
    """The mesh axes along which lie parts of one sample, in what is being traced."""
    return _AXES.get()


def whole_sum(parts: Array) -> Array:
    """The sum of the devices' parts of a sample."""
    return varying_over(frozenset(_AXES.get()), lax.psum(parts, _AXES.get())) if _AXES.get() else parts


def whole_max(parts: Array) -> Array:
    """The largest of the devices' parts of a sample."""
    return varying_over(frozenset(_AXES.get()), lax.pmax(parts, _AXES.get())) if _AXES.get() else parts


def _is_told(axis: str) -> bool:
    return bool(varying_axes(lax.axis_index(axis)))


def _communicated(jaxpr: Any) -> frozenset[str]:
    """The axes over which a program communicates, those of all programs within it included."""
    axes: set[str] = set()
    for equation in jaxpr.eqns:
        inner = [part for value in equation.params.values() for part in _programs(value)]
        for program in inner:
            axes |= _communicated(program)
        if not inner and equation.primitive.name != "axis_index":
            axes |= {effect.name for effect in equation.effects if type(effect).__name__ == "NamedAxisEffect"}
    return frozenset(axes)


def _programs(value: Any) -> list[Any]:
    """The programs that a parameter of an operation holds."""
    program = getattr(value, "jaxpr", value)  # closed, or not
    if hasattr(program, "eqns"):
        return [program]
    return [program for part in value for program in _programs(part)] if isinstance(value, tuple | list) else []
