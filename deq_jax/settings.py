"""What a setting may be, said once, in the user's words."""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = float | Float[Array, ""]


def check_positive(name: str, value: Any, *, or_zero: bool = False) -> None:
    """Raise a ValueError unless the setting is one positive, finite number; a traced one is trusted."""
    if isinstance(value, jax.core.Tracer) or (or_zero and _is_number(value) and value == 0):
        return
    if not _is_number(value) or not 0 < value < math.inf:
        wanted = "must not be negative, and be finite" if or_zero else "must be positive and finite"
        raise ValueError(f"{name} {wanted}, one number; got {value!r}.")


def whole_number(name: str, value: Any, *, minimum: int = 1) -> int:
    """The setting as an ``int``; raises a ValueError unless it is a whole number, at least ``minimum``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = minimum - 1
    if number < minimum:
        raise ValueError(f"{name} must be a whole number, at least {minimum}; got {value!r}.")
    return number


def _is_number(value: Any) -> bool:
    return jnp.isscalar(value) or (hasattr(value, "dtype") and jnp.ndim(value) == 0)
