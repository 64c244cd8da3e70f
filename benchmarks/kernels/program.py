"""What a compiled program does in its loops, read from XLA's text of it."""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
NO_WORK = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "opt-barrier"}
"""Operations for which a GPU is given nothing to do."""

_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_OPERATION = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = (.+?) ([\w\-]+)\((.*)")
_ARRAY = re.compile(r"(pred|[su]\d+|bf16|f\d+)\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")


class Operation(NamedTuple):
    """One line of a computation."""

    name: str
    shape: str
    kind: str
    """Such as ``fusion``; of a library's function its name."""
    operands: tuple[str, ...]
    is_root: bool
    rest: str


class Loop(NamedTuple):
    """What one iteration of a while loop does, loops within it left out."""

    name: str
    depth: int
    """Loops around it."""
    kernels: collections.Counter[str]
    """How many of each kind it starts."""
    moved: int
    """Bytes that they read and write at most: a ring that is updated in place counts whole, twice."""
    least: int
    """Bytes of every array that the iteration changes or looks at, once, and of what its convolutions and its other
    calls of libraries make, twice: written, and read."""


def loops(text: str) -> Iterator[Loop]:
    """Every while loop, outermost first."""
    program = _computations(text)
    entry = next(line for line in text.splitlines() if line.startswith("ENTRY"))
    start = _COMPUTATION.match(entry)
    assert start is not None
    yield from _within(program, start[1], 0)


def _within(program: dict[str, list[Operation]], computation: str, depth: int) -> Iterator[Loop]:
    for operation in program[computation]:
        if operation.kind == "while" and (body := re.search(r"body=%?([\w.\-]+)", operation.rest)):
            yield _loop(program[body[1]], body[1], depth)
            yield from _within(program, body[1], depth + 1)


def _loop(body: list[Operation], name: str, depth: int) -> Loop:
    shapes = {operation.name: operation.shape for operation in body}
    work = [operation for operation in body if operation.kind not in NO_WORK | {"while", "call", "conditional"}]
    moved = sum(size_of(op.shape) + sum(size_of(shapes.get(a, "")) for a in op.operands) for op in work)
    made = sum(size_of(op.shape) for op in work if "custom_call_target" in op.rest)
    return Loop(name, depth, collections.Counter(op.kind for op in work), moved, _carried(body) + 2 * made)


def _carried(body: list[Operation]) -> int:
    """Bytes of the arrays that are handed on, and of those that are read and stay as they are."""
    root = next(operation for operation in body if operation.is_root)
    elements = {operation.name: operation for operation in body if operation.kind == "get-tuple-element"}
    read = {operand for operation in body if operation is not root for operand in operation.operands}
    changed = [operand for operand in root.operands if operand not in elements]
    shapes = {operation.name: operation.shape for operation in body}
    return sum(size_of(shapes.get(name, "")) for name in changed) + sum(
        size_of(operation.shape) for name, operation in elements.items() if name in read
    )


def size_of(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple, as XLA writes their type."""
    return sum(
        BYTES.get(kind, 0) * math.prod(int(n) for n in dims.split(",") if n) for kind, dims in _ARRAY.findall(shape)
    )


def _computations(text: str) -> dict[str, list[Operation]]:
    found: dict[str, list[Operation]] = {}
    lines: list[Operation] | None = None
    for line in text.splitlines():
        if not line.startswith(" ") and (head := _COMPUTATION.match(line)):
            lines = found.setdefault(head[1], [])
        elif line.startswith("}"):
            lines = None
        elif lines is not None and (parts := _OPERATION.match(line)):
            root, name, shape, kind, rest = parts.groups()
            library = re.search(r'custom_call_target="([^"]+)"', rest)
            operands = tuple(_NAME.findall(rest.split("), ")[0]))
            lines.append(Operation(name, shape, library[1] if library else kind, operands, bool(root), rest))
    return found
