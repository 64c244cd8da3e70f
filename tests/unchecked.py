"""Calls as a user makes them: only in these tests are annotations checked, and what they refuse never gets further."""

from collections.abc import Callable


def unchecked(function: Callable) -> Callable:
    """The function without the checks of its annotations."""
    return getattr(function, "__wrapped__", function)
