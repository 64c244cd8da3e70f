"""The command line of a training program: a preset, which is a named configuration, and any of its fields."""

import contextlib
import dataclasses
import difflib
import inspect
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import tyro

from deq_jax.training.devices.places import FLAGS
from deq_jax.training.errors import UserError
from deq_jax.training.settings.record import flatten, to_dict

_BOX = "╭╮╰╯│─"
_USAGE = "python train.py PRESET [--field value ...]"
QUIET = "--quiet"
"""The switch that is no field of a configuration: it says nothing of the run."""


def parse[T](arguments: Sequence[str], named: Mapping[str, Callable[[], T]]) -> T:
    """The configuration that `PRESET [--field value ...]` asks for, of presets whose docstrings are their help.

    Prints the help and exits with status 0 on --help.

    Raises:
        UserError: on an unknown preset or field, or a value that a field does not take.
    """
    presets = ", ".join(named)
    wants_help = bool({"-h", "--help"} & set(arguments))
    name, fields = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    if wants_help and name not in named:
        name, fields = next(iter(named)), ["--help"]
    if not name or name.startswith("-"):
        raise UserError(f"a preset comes first: {_USAGE}\nPresets: {presets}.")
    if name not in named:
        raise UserError(f"unknown preset '{name}'{_suggestion(name, named)}\nExpected {_USAGE}. Presets: {presets}.")
    default = named[name]()
    if not wants_help:
        _require_known_fields(fields, default)
    docs = {preset: inspect.getdoc(make) or "" for preset, make in named.items()}
    listing = "\n".join(f"{preset:18}{doc.splitlines()[0]}" for preset, doc in docs.items())
    head = f"{listing}\n\n{QUIET}: print only what is wrong.\n{', '.join(FLAGS)}: as one of several processes."
    return parse_function(
        type(default),
        fields,
        prog="train.py PRESET",
        default=default,
        description=f"{head}\n\nThe defaults below are those of {name}.\n\n{docs[name]}",
    )


def parse_function[T](
    function: Callable[..., T],
    arguments: Sequence[str],
    *,
    prog: str,
    default: Any = None,
    description: str | None = None,
    has_switches: bool = False,
) -> T:
    """What `function`, or a dataclass, gives when called with the command line's arguments.

    With `has_switches` a field of True or False is a switch that is given or not; else it takes a value, as all do.

    Raises:
        UserError: tyro does not understand the arguments; says so in one line.
    """
    _require_values(arguments)
    complaint = io.StringIO()
    defaults = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                function,
                prog=prog,
                description=description,
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff if has_switches else tyro.conf.FlagConversionOff,),
                **defaults,
            )
    except SystemExit as end:
        if not end.code:
            raise
    message = _first_paragraph(complaint.getvalue()).removeprefix("Error parsing ").removeprefix("Config: ")
    raise UserError(message or f"{prog} does not understand: {' '.join(arguments)}")


def without_switch(arguments: Sequence[str], switch: str) -> tuple[list[str], bool]:
    """The other arguments, and whether the switch is among them."""
    return [argument for argument in arguments if argument != switch], switch in arguments


def _require_known_fields(arguments: Iterable[str], config: Any) -> None:
    known = [QUIET.removeprefix("--"), *(field.replace("_", "-") for field in flatten(to_dict(config)))]
    for argument in arguments:
        field = argument.split("=")[0].removeprefix("--").replace("_", "-")
        if argument.startswith("--") and field not in known:
            top = [field.name for field in dataclasses.fields(config)]
            raise UserError(
                f"unknown field '{argument.split('=')[0]}'{_suggestion(field, known, '--')}\n"
                f"Fields: {', '.join(top).replace('_', '-')}; groups take --group.field. All of them: train.py --help"
            )


def _require_values(arguments: Sequence[str]) -> None:
    """Refuses what a shell makes of an unset variable: an empty path would mean the current folder."""
    for before, argument in pairwise(["", *arguments]):
        name, equals, value = argument.partition("=")
        if not argument or (name.startswith("--") and equals and not value):
            field = name or (before if before.startswith("--") else "an argument")
            raise UserError(f"{field} is empty: give it a value, or leave it out.")


def _first_paragraph(box: str) -> str:
    """The message of one of tyro's boxes, without the frame, its title and what follows the first rule."""
    words: list[str] = []
    for line in box.splitlines()[1:]:
        text = line.strip(_BOX + " ")
        if not text:
            break
        words.append(text)
    return " ".join(words)


def _suggestion(word: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(word, list(known), n=2)
    return f"; did you mean {' or '.join(prefix + name for name in near)}?" if near else "."
