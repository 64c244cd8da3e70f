"""Settings given as keywords, in Python: looked at as a command line's are, which has types for them."""

import dataclasses
import difflib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from deq_jax.training.errors import UserError
from deq_jax.training.settings.settings import Settings


def settled(settings: Settings | None, changes: Mapping[str, Any]) -> Settings:
    """The settings with these changes, of which a group's may be a dictionary.

    Raises:
        UserError: there is no such setting, or it does not take that value.
    """
    if settings is not None and not isinstance(settings, Settings):
        raise UserError(f"settings are a {type(settings).__name__}; expected a training.Settings, or keywords.")
    if settings is None and "out" not in changes:
        raise UserError('out is missing: name a folder to keep the run in, such as out="runs/mine".')
    return _changed(Settings, settings, changes)


def _changed[T](kind: type[T], before: T | None, changes: Mapping[str, Any], prefix: str = "") -> T:
    hints = get_type_hints(kind)
    values = {} if before is None else {name: getattr(before, name) for name in hints}
    for name, value in changes.items():
        if name not in hints:
            raise UserError(f"there is no setting {prefix}{name}{_suggestion(name, hints, prefix)}")
        hint = hints[name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
            values[name] = _changed(hint, values.get(name, hint()), value, f"{prefix}{name}.")
        else:
            values[name] = _taken(f"{prefix}{name}", value, hint)
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(f"{prefix}{error}") from error


def _taken(name: str, value: Any, hint: Any) -> Any:
    """A value in its field's own type."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for kind in kinds:
        if get_origin(kind) is Literal and isinstance(value, str) and value in get_args(kind):
            return value
        if kind is Path and isinstance(value, str | Path) and str(value):
            return Path(value)
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
    raise UserError(f"{name} is {value!r}; expected {' or '.join(map(_said, kinds))}.")


def _said(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return f"a {kind.__name__} or a dictionary of its fields"
    words = {int: "a whole number", float: "a number", Path: "a folder", types.NoneType: "None"}
    return words.get(kind, getattr(kind, "__name__", str(kind)))


def _suggestion(word: str, known: Iterable[str], prefix: str) -> str:
    near = difflib.get_close_matches(word, list(known), n=2)
    return (
        f"; did you mean {' or '.join(prefix + name for name in near)}?" if near else f". There are {', '.join(known)}."
    )
