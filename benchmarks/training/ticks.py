"""Counting evaluations inside compiled programs: identities that report each time they run.

A cell's input passes through :func:`count_calls` and its output through :func:`count_products`. The first counts calls
of the cell, wherever they happen: in a loop, in a linearisation, in a repeated forward pass. The second counts products
with the cell's Jacobian and with its transpose. Both survive every transformation, whatever library applies it.
"""

import jax
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

counts = {"call": 0, "product": 0}
"""Since the program began."""


def count_calls(z: Array) -> Array:
    """``z``, counted when computed; derivatives pass uncounted."""
    return _tick.bind(z, kind="call")


def count_products(fz: Array) -> Array:
    """``fz``; its tangents and cotangents are counted when computed."""
    return _tick.bind(fz, kind="value")


def _count(x: Array, *, kind: str) -> Array:
    if kind not in counts:
        return x

    def add_one(_: Array) -> np.ndarray:
        counts[kind] += 1
        return np.ones((), x.dtype)

    # A pure callback on which the value depends: the compiler may merge repeats, as it does in the step that is timed.
    return x * jax.pure_callback(add_one, jax.ShapeDtypeStruct((), x.dtype), lax.slice(x, (0,) * x.ndim, (1,) * x.ndim))


def _jvp(primals: tuple, tangents: tuple, *, kind: str) -> tuple:
    (primal,), (tangent,) = primals, tangents
    if kind == "value" and not isinstance(tangent, ad.Zero):
        tangent = _tick.bind(tangent, kind="product")
    return _tick.bind(primal, kind=kind), tangent


def _transpose(cotangent: Array, _: Array, *, kind: str) -> list:
    return [cotangent if isinstance(cotangent, ad.Zero) else _tick.bind(cotangent, kind=kind)]


_tick = Primitive("tick")
_tick.def_impl(_count)
_tick.def_abstract_eval(lambda x, *, kind: x)
ad.primitive_jvps[_tick] = _jvp
ad.primitive_transposes[_tick] = _transpose
batching.primitive_batchers[_tick] = lambda args, axes, *, kind: (_tick.bind(*args, kind=kind), axes[0])
mlir.register_lowering(_tick, mlir.lower_fun(_count, multiple_results=False))
