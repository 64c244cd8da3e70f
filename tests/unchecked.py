"""Calls as a user makes them: only in these tests are annotations checked, and what they refuse never gets further."""

import inspect
from collections.abc import Callable


def unchecked(function: Callable) -> Callable:
    """The function without the checks of its annotations."""
    return inspect.unwrap(function)
