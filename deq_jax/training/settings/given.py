"""Settings given as keywords, in Python: looked at as a command line's are, which has types for them."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

from deq_jax.training.errors import UserError
from deq_jax.training.settings.settings import Settings
from deq_jax.training.settings.values import taken


def settled(settings: Settings | None, changes: Mapping[str, Any]) -> Settings:
    """The settings with these changes, of which a group's may be a dictionary.

    Raises:
        UserError: there is no such setting, or it does not take that value.
    """
    if settings is not None and not isinstance(settings, Settings):
        raise UserError(f"settings are a {type(settings).__name__}; expected a training.Settings, or keywords.")
    if settings is None and "out" not in changes:
        raise UserError('out is missing: name a folder to keep the run in, such as out="runs/mine".')
    groups = (
        {} if settings is None else {name: vars(value) for name, value in vars(settings).items() if _is_group(value)}
    )
    return _changed(Settings, settings, groups | dict(changes))


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
            values[name] = value
    try:
        # Those that a dataclass was made with have not been looked at, either.
        values = {name: taken(f"{prefix}{name}", value, hints[name]) for name, value in values.items()}
    except ValueError as error:
        raise UserError(str(error)) from error
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(f"{prefix}{error}") from error


def _is_group(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _suggestion(word: str, known: Iterable[str], prefix: str) -> str:
    near = difflib.get_close_matches(word, list(known), n=2)
    return (
        f"; did you mean {' or '.join(prefix + name for name in near)}?" if near else f". There are {', '.join(known)}."
    )
