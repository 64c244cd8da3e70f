"""Settings as config.json keeps them: any frozen dataclass of values and of groups, which are dataclasses of values."""

import dataclasses
import json
from typing import Any, get_type_hints

from deq_jax.training.errors import UserError
from deq_jax.training.settings.values import taken

# These say how long, where and how, not what: a run may be continued with others.
MAY_DIFFER = frozenset(
    {
        "max_steps",
        "data_dir",
        "out",
        "checkpoint_minutes",
        "devices",
        "data.in_memory",
        "data.workers",
        "validation.patience",
    }
)


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain JSON values, groups nested."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def from_dict[T](kind: type[T], values: dict[str, Any]) -> T:
    """Inverse of `to_dict`, to a configuration of this kind. A field that is missing takes its default.

    Raises:
        UserError: says in a few words what is wrong: a field that does not exist, or a value that it cannot take.
    """
    unknown = flatten(values).keys() - _names(kind)
    if unknown:
        raise UserError(f"unknown {', '.join(sorted(unknown))}")
    missing = [name for name in _required(kind) if name not in values]
    if missing:
        raise UserError(f"{' and '.join(missing)} missing")
    try:
        return _made(kind, values)
    except ValueError as error:
        raise UserError(str(error)) from error


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under the names that the command line gives them: {"solver.tol": 0.01, ...}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def same_everywhere(config: Any) -> dict[str, Any]:
    """The settings that all processes of a run must share, under the names that the command line gives them."""
    own = ("data_dir", "data.in_memory", "data.workers")
    return {name: value for name, value in flatten(to_dict(config)).items() if name not in own}


def differences(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """The settings that make two runs different ones, with both values."""
    ours, theirs = flatten(to_dict(one)), flatten(to_dict(other))
    return {name: (ours[name], theirs[name]) for name in ours if name not in MAY_DIFFER and ours[name] != theirs[name]}


def _made(kind: Any, values: dict[str, Any], prefix: str = "") -> Any:
    """The configuration, or a group of it, of values as JSON has made them."""
    hints, made = get_type_hints(kind), {}
    for name, value in values.items():
        hint = hints[name]
        is_group = dataclasses.is_dataclass(hint) and isinstance(value, dict)
        made[name] = _made(hint, value, f"{prefix}{name}.") if is_group else taken(f"{prefix}{name}", value, hint)
    return kind(**made)


def _names(kind: Any, prefix: str = "") -> set[str]:
    """The names of all fields, those of groups in `flatten`'s form."""
    names: set[str] = set()
    for name, hint in get_type_hints(kind).items():
        names |= _names(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else {f"{prefix}{name}"}
    return names


def _required(kind: Any) -> list[str]:
    missing = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    return [field.name for field in fields if field.default is missing and field.default_factory is missing]
