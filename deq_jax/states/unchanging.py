"""What a function computes of its other inputs alone, apart from what depends on the state."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Literal

CHEAP = frozenset({"broadcast_in_dim", "convert_element_type", "iota", "reshape", "squeeze", "transpose"})
"""Made anew wherever they are needed: kept, they would be larger to read than to make."""


def ahead(jaxpr: Any, changing: int) -> tuple[Callable[..., list], Callable[..., list]]:
    """A program in two: ``before(consts, *others)`` and ``after(kept, *state)``, of which the second goes into a loop.

    The first ``changing`` inputs of the program are the state. What a compiler takes out of a loop by itself depends on
    the compiler; a linearisation must be made once.
    """
    state, others = jaxpr.invars[:changing], jaxpr.invars[changing:]
    depends = set(state)
    before, after = [], []
    for equation in jaxpr.eqns:
        inputs = [v for v in equation.invars if not isinstance(v, Literal)]
        if equation.effects or any(v in depends for v in inputs):
            depends.update(equation.outvars)
            after.append(equation)
        else:
            before.append(equation)
            if equation.primitive.name in CHEAP:
                after.append(equation)
    after = _needed(after, jaxpr.outvars)
    made_after = {v for equation in after for v in equation.outvars}
    read = [v for equation in after for v in equation.invars] + list(jaxpr.outvars)
    kept = list(
        dict.fromkeys(v for v in read if not isinstance(v, Literal) and v not in depends and v not in made_after)
    )
    names = jaxpr.debug_info.with_unknown_names()
    first = jaxpr.replace(invars=others, outvars=kept, eqns=before, debug_info=names)
    second = jaxpr.replace(constvars=[], invars=[*kept, *state], eqns=after, debug_info=names)
    return (
        lambda consts, *values: jax.core.eval_jaxpr(first, consts, *values),
        lambda kept, *values: jax.core.eval_jaxpr(second, [], *kept, *values),
    )


def _needed(equations: list, outputs: Any) -> list:
    """Those on which the outputs depend."""
    wanted = {v for v in outputs if not isinstance(v, Literal)}
    needed = []
    for equation in reversed(equations):
        if equation.effects or any(v in wanted for v in equation.outvars):
            needed.append(equation)
            wanted.update(v for v in equation.invars if not isinstance(v, Literal))
    return needed[::-1]
