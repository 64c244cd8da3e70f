"""What a number in the settings may be."""

import math
from typing import Any


def require_positive(config: Any, *names: str) -> None:
    """Raise a ValueError unless these fields of a group of settings are positive and finite."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, but is {value}")


def require_not_negative(config: Any, *names: str) -> None:
    """Raise a ValueError unless these fields are zero or positive, and finite."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must not be negative, but is {value}")


def require_share(config: Any, *names: str) -> None:
    """Raise a ValueError unless these fields are from 0 to 1."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be a share from 0 to 1, but is {value}")
