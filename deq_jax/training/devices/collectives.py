"""Where the devices of a compiled program wait for one another, read from the program itself."""

import re
from collections.abc import Mapping
from typing import NamedTuple

_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast|ragged-all-to-all"
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_COLLECTIVE = re.compile(rf" ({_KINDS})(?:-start)?\(")
_NAMES = re.compile(r"%([\w.\-]+)")
_LOOP = re.compile(r" while\(.*?condition=%?([\w.\-]+).*?body=%?([\w.\-]+)")


class Collectives(NamedTuple):
    """Operations in which all devices take part, one that reduces several arrays counted once."""

    once: list[str]
    """The kinds of those that a run of the program comes to once, such as ``all-reduce``."""
    in_loops: list[str]
    """The kinds of those that it may come to any number of times."""


def collectives(program: str) -> Collectives:
    """The collectives of a program in XLA's text, ``compiled.as_text()``."""
    bodies = _computations(program)
    in_loops: set[str] = set()
    for lines in bodies.values():
        for line in lines:
            for part in ((loop := _LOOP.search(line)) and loop.groups()) or ():
                _reach(part, bodies, in_loops)
    found = [(name, kind[1]) for name, lines in bodies.items() for line in lines if (kind := _COLLECTIVE.search(line))]
    return Collectives(
        [kind for name, kind in found if name not in in_loops], [kind for name, kind in found if name in in_loops]
    )


def _computations(program: str) -> dict[str, list[str]]:
    """The lines of each, under its name."""
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in program.splitlines():
        if head := _COMPUTATION.match(line):
            lines = bodies.setdefault(head[1], [])
        else:
            lines.append(line)
    return bodies


def _reach(name: str, bodies: Mapping[str, list[str]], reached: set[str]) -> None:
    """Adds a computation, and all that it calls."""
    if name in reached or name not in bodies:
        return
    reached.add(name)
    for line in bodies[name]:
        for other in _NAMES.findall(line):
            _reach(other, bodies, reached)
