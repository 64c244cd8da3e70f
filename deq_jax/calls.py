"""What is said to a caller whose arguments a function has no place for."""

import functools
import inspect
from collections.abc import Callable
from typing import Any


def advised[F: Callable[..., Any]](advice: str) -> Callable[[F], F]:
    """Decorate a function such that a call that does not fit its signature is answered with ``advice``, too."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__qualname__}: {error}. {advice}") from None
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


advised_primitive = advised(
    "What f depends on goes in by position, after z0, and settings by name: fixed_point(f, z0, x, solver=solver)."
)
advised_solver = advised(
    "A solver takes f(z) and z0, and settings by name. Close over what else f depends on: "
    "anderson(lambda z: f(z, x), z0)."
)
advised_layer = advised(
    "A layer takes the cell, solver= and adjoint=. A solver's settings go in with it: "
    "solver=functools.partial(deq_jax.anderson, tol=1e-3)."
)
