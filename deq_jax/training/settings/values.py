"""Whether a value is of its field's type and among its words, given in Python or read from config.json."""

import dataclasses
import math
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin


def taken(name: str, value: Any, hint: Any) -> Any:
    """A value in its field's own type; where that is asked for, an int becomes a float, a text a path, a list a tuple.

    Raises:
        ValueError: the field does not take it; says what it takes.
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for kind in kinds:
        if get_origin(kind) is Literal:
            if any(type(value) is type(word) and value == word for word in get_args(kind)):
                return value
        elif get_origin(kind) is tuple:
            if isinstance(value, tuple | list):
                return tuple(taken(name, one, get_args(kind)[0]) for one in value)
        elif kind is Path:
            if isinstance(value, str | Path) and str(value):
                return Path(value)
        elif kind is float:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return _as_float(value)
        elif isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
    raise ValueError(f"{name} is {_shown(value)}; expected {' or '.join(map(_said, kinds))}.")


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _shown(value: Any) -> str:
    shown = repr(value) if not isinstance(value, int) or abs(value) < 10**100 else "a number of many figures"
    return shown if len(shown) <= 80 else f"{shown[:80]}…"


def _said(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list, each {_said(get_args(kind)[0])}"
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return f"a {kind.__name__} or a dictionary of its fields"
    words = {int: "a whole number", float: "a number", Path: "a folder", types.NoneType: "None", bool: "True or False"}
    return words.get(kind, "a text" if kind is str else getattr(kind, "__name__", str(kind)))
