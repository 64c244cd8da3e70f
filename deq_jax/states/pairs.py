"""What ``has_aux=True`` means: ``f`` returns a state, and what else it has to tell."""

from collections.abc import Callable
from typing import Any

from jaxtyping import PyTree


def state_of(f: Callable[..., tuple[PyTree, Any]]) -> Callable[..., PyTree]:
    """``f`` without its second output.

    Raises:
        TypeError: when called: ``f`` returns no pair.
    """

    def state(*arguments: Any) -> PyTree:
        returned = f(*arguments)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(f"with has_aux=True f must return a pair (z, aux), got {type(returned).__name__}.")
        return returned[0]

    return state
