"""Command lines and configuration files that are wrong, made from the settings themselves, and what becomes of them."""

import dataclasses
import json
import random
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.presets import PRESETS
from deq_jax.training.disk.folder import claim, read_config
from deq_jax.training.errors import UserError
from deq_jax.training.process.cli import parse

_WORDS = {
    int: ["x", "1.5", "-1", "99999999999999999999", "nan", "", "1e3", "None None", "0x10"],
    float: ["x", "nan", "inf", "-1", "-1e400", "1e400", "1e-400", "", "1,5"],
    bool: ["maybe", "2", "", "yes!"],
    str: [""],
    Path: [""],
    tuple: ["x", "1.5", "-1"],
    Literal: ["foo", "", "ANDERSON "],
}
_VALUES: list[Any] = [
    "no",
    "x",
    [],
    {},
    [1],
    True,
    -1,
    1.5,
    10**30,
    1e300,
    float("nan"),
    None,
    "\ud800",
    [[[]]],
    {"a": 1},
]


def fields(kind: Any = Config, prefix: str = "") -> Iterator[tuple[str, set[Any]]]:
    """Every field's name on the command line, and the kinds of values that it takes."""
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from fields(hint, f"{prefix}{name}.")
        else:
            kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
            yield f"{prefix}{name}", {get_origin(one) or one for one in kinds}


def command_lines(rng: random.Random) -> Iterator[list[str]]:
    """One wrong word each, with every field of every kind; presets, names and orders that there are not."""
    for name, kinds in fields():
        option = f"--{name.replace('_', '-')}"
        for kind in kinds & _WORDS.keys():
            for word in _WORDS[kind]:
                yield [rng.choice(list(PRESETS)), option, word]
        yield [rng.choice(list(PRESETS)), option]
        yield [rng.choice(list(PRESETS)), f"{option}x", "1"]
    yield from (
        [],
        ["--epochs", "3"],
        ["digit"],
        ["digits", "more"],
        ["digits", "--"],
        ["digits", "-x"],
        ["digits", "="],
    )


def configurations(rng: random.Random) -> Iterator[Any]:
    """A configuration as JSON has it, with one value of another kind; and texts that are none."""
    base = json.loads(json.dumps(dataclasses.asdict(PRESETS["digits"]()), default=str))
    for name, _ in fields():
        *groups, last = name.split(".")
        for value in rng.sample(_VALUES, 6):
            changed = json.loads(json.dumps(base))
            place = changed
            for group in groups:
                place = place[group]
            place[last] = value
            yield json.dumps(changed)
    text = json.dumps(base)
    for _ in range(60):
        cut = rng.randrange(len(text))
        yield rng.choice(
            [text[:cut], text[:cut] + "\0" + text[cut:], text[:cut] + rng.choice('"{}[],x') + text[cut + 1 :]]
        )


def refused_commands(rng: random.Random, number: int | None = None) -> tuple[int, int, list[str]]:
    """How many were tried and refused, and what came of others that is neither refusal nor a configuration.

    With a number only so many, drawn from all.
    """
    tried, refused, wrong = 0, 0, []
    every = list(command_lines(rng))
    for words in every if number is None else rng.sample(every, number):
        tried += 1
        try:
            parse(words, PRESETS)
        except UserError as error:
            refused += 1
            if str(error).count("\n") > 2:
                wrong.append(f"{words}: a long story: {error}")
        except BaseException as error:  # noqa: BLE001 - whatever is no UserError is what is looked for
            wrong.append(f"{words}: {type(error).__name__}: {error}")
    return tried, refused, wrong


def refused_configurations(rng: random.Random, folder: Path) -> tuple[int, int, list[str]]:
    """The same of files; one that is taken must come back as it was read."""
    tried, refused, wrong = 0, 0, []
    folder.mkdir(parents=True, exist_ok=True)
    for text in configurations(rng):
        tried += 1
        (folder / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            config = read_config(folder, Config)
            claim(folder, config)
            if read_config(folder, Config) != config:
                wrong.append(f"{text[:80]}: comes back as another")
        except UserError:
            refused += 1
        except BaseException as error:  # noqa: BLE001 - as above
            wrong.append(f"{type(error).__name__}: {error}: {text[:200]}")
    return tried, refused, wrong
