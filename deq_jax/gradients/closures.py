"""The traced arrays that a function holds, and the same function with others in their place.

JAX lets no rule of a ``custom_vjp`` or ``custom_jvp`` hold a tracer. What ``f`` depends on is found by tracing it; a
solver and an adjoint take functions, and are traced within the rules only, too late. So theirs are found where Python
keeps them: in closures, in ``functools.partial``, in bound methods, and in pytrees within these.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jaxtyping import Array


def take_out(thing: Any) -> tuple[list[Array], Callable[[list[Array]], Any]]:
    """The tracers in ``thing``, without their derivatives, and ``thing`` as a function of what stands for them.

    Where there are none, it is ``thing`` itself that comes back.
    """
    found: list[Array] = []
    rebuild = _opened(thing, found, frozenset())

    def put_back(arrays: list[Array]) -> Any:
        return thing if rebuild is None else rebuild(arrays)

    # A value of the outermost level that it depends on: no derivative is left to be lost.
    return [lax.stop_gradient(tracer) for tracer in found], put_back


def _opened(thing: Any, found: list[Array], within: frozenset[int]) -> Callable[[list[Array]], Any] | None:
    """How to build ``thing`` anew from arrays, in the order of ``found``; None where it holds no tracer."""
    if isinstance(thing, jax.core.Tracer):
        found.append(thing)
        index = len(found) - 1
        return lambda arrays: arrays[index]
    if id(thing) in within:  # a function that calls itself
        return None
    parts, assemble = _parts(thing)
    openings = [_opened(part, found, within | {id(thing)}) for part in parts]
    if not any(openings):
        return None
    return lambda arrays: assemble([o(arrays) if o else part for o, part in zip(openings, parts, strict=True)])


def _parts(thing: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """What ``thing`` is made of, and how to make it of such parts."""
    if isinstance(thing, functools.partial) and type(thing) is functools.partial:
        count, names = len(thing.args), list(thing.keywords)
        return [thing.func, *thing.args, *thing.keywords.values()], lambda parts: functools.partial(
            parts[0], *parts[1 : 1 + count], **dict(zip(names, parts[1 + count :], strict=True))
        )
    if isinstance(thing, types.MethodType):
        return [thing.__func__, thing.__self__], lambda parts: types.MethodType(*parts)
    if isinstance(thing, types.FunctionType):
        return _parts_of_function(thing)
    leaves, structure = jax.tree.flatten(thing, is_leaf=lambda leaf: leaf is not thing)
    if len(leaves) == 1 and leaves[0] is thing:
        return [], lambda parts: thing
    return leaves, lambda parts: jax.tree.unflatten(structure, parts)


def _parts_of_function(function: types.FunctionType) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    cells = list(function.__closure__ or ())
    filled = [i for i, cell in enumerate(cells) if cell != types.CellType()]
    defaults, named = list(function.__defaults__ or ()), dict(function.__kwdefaults__ or {})

    def assemble(parts: list[Any]) -> Any:
        fresh = list(cells)
        for i, content in zip(filled, parts, strict=False):
            fresh[i] = types.CellType(content)
        rest = parts[len(filled) :]
        new = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            tuple(rest[: len(defaults)]) or None,
            tuple(fresh) or None,
        )
        new.__kwdefaults__ = dict(zip(named, rest[len(defaults) :], strict=True)) or None
        return functools.update_wrapper(new, function)

    return [*(cells[i].cell_contents for i in filled), *defaults, *named.values()], assemble
