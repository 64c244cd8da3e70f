"""Values that have no derivative, or one in reverse mode only, and say so where another is asked for.

A derivative that nobody uses is no error, so it is a linear map of tangents that raises it: JAX evaluates it in forward
mode, and transposes it in reverse mode. Each is a primitive, since what ``jax.custom_derivatives.linear_call`` makes
cannot be mapped over by ``jax.vmap`` and ``jax.jacfwd``. A compiled program has no operation for them.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, PyTree


def _operation(name: str, evaluate: Callable[[Array], Array]) -> Primitive:
    primitive = Primitive(name)
    primitive.def_impl(evaluate)
    primitive.def_abstract_eval(lambda operand: operand)
    mlir.register_lowering(primitive, mlir.lower_fun(evaluate, multiple_results=False))
    batching.defvectorized(primitive)
    return primitive


def _nan_like(tangent: Array) -> Array:
    return tangent * jnp.nan


def _no_reverse_mode(cotangent: Array, tangent: Any) -> NoReturn:
    del cotangent, tangent
    raise TypeError(
        "a solver has no derivative, but its solution is differentiated. deq_jax.fixed_point(f, z0, *args, "
        "solver=...) has one in reverse mode, deq_jax.fixed_point_jvp in forward mode, too. Where none is meant, "
        "wrap the solution in jax.lax.stop_gradient."
    )


def _no_forward_mode(*operands: Any) -> NoReturn:
    del operands
    raise TypeError(
        "deq_jax.fixed_point has no forward mode, which jax.jvp, jax.linearize, jax.jacfwd and jax.hessian use. "
        "deq_jax.fixed_point_jvp(f, z0, *args, solver=...) has both modes. Or stay in reverse mode: jax.jacrev for "
        "jax.jacfwd, and jax.jacrev(jax.grad(...)) for jax.hessian."
    )


_none = _operation("no_derivative", _nan_like)
ad.deflinear2(_none, _no_reverse_mode)
_reverse = _operation("no_forward_mode", _no_forward_mode)
ad.deflinear2(_reverse, lambda cotangent, tangent: [cotangent])
# jax.jacfwd maps over a custom_vjp's tangents, which JAX refuses in its own words, before it evaluates any.
batching.primitive_batchers[_reverse] = _no_forward_mode


@jax.custom_jvp
def without_derivative(tree: PyTree) -> PyTree:
    """A solver's ``tree``, which has none: that of the loop's steps is not that of the equilibrium.

    Asking for it is an error in reverse mode and NaN in forward mode, which cannot know whether it is asked for.
    """
    return tree


@without_derivative.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
    return primals[0], jax.tree.map(_none.bind, tangents[0])


def in_reverse_mode_only(tree: PyTree) -> PyTree:
    """What goes into a ``custom_vjp``, such that forward mode is refused in this library's words and not in JAX's."""
    return jax.tree.map(_reversible.bind, tree)


def _tangent_in_reverse_mode(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    (tangent,) = tangents
    return _reversible.bind(*primals), tangent if isinstance(tangent, ad.Zero) else _reverse.bind(tangent)


# An identity, and no custom_jvp: jax.vmap would map over that one's rule, and so over tangents that reverse mode has.
_reversible = _operation("in_reverse_mode_only", lambda leaf: leaf)
ad.primitive_jvps[_reversible] = _tangent_in_reverse_mode
