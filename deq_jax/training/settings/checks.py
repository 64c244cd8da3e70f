"""What a number in the settings may be."""

import math
from typing import Any

WHOLE = 2**31 - 1
"""The largest whole number that a device counts with."""
LARGEST, SMALLEST = 3.4e38, 1.2e-38
"""Of numbers in single precision, in which a device computes."""


def require_positive(config: Any, *names: str, at_most: int | None = None) -> None:
    """Raise a ValueError unless these fields of a group of settings are positive and finite, and at most so large."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, but is {_shown(value)}")
        _require_countable(name, value, at_most)


def require_not_negative(config: Any, *names: str, at_most: int | None = None) -> None:
    """Raise a ValueError unless these fields are zero or positive, and finite, and at most so large."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must not be negative, but is {_shown(value)}")
        _require_countable(name, value, at_most)


def require_share(config: Any, *names: str) -> None:
    """Raise a ValueError unless these fields are from 0 to 1."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be a share from 0 to 1, but is {_shown(value)}")


def _require_countable(name: str, value: int | float, at_most: int | None) -> None:
    largest = at_most if at_most is not None else WHOLE if isinstance(value, int) else LARGEST
    if value > largest:
        raise ValueError(f"{name} must be at most {largest:,}, but is {_shown(value)}")
    if isinstance(value, float) and 0 < value < SMALLEST:
        raise ValueError(f"{name} must be at least {SMALLEST:g}, but is {_shown(value)}")


def _shown(value: int | float) -> str:
    return str(value) if not isinstance(value, int) or abs(value) < 10**30 else "a number of many figures"
