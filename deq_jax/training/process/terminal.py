"""What a program prints when nobody reads it, or nobody can: it must not end a training, nor make it wait."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_AT_ONCE = 4096
"""Bytes that a pipe which has room takes without waiting."""
SECONDS_OF_PATIENCE = 2.0


class _Lasting:
    """A text stream that takes what its reader no longer does.

    With `patience` it waits so many seconds at most for a reader that is slow, and loses what comes until that reads
    again; with None it waits for ever.
    """

    def __init__(self, stream: TextIO, patience: float | None) -> None:
        self._stream, self._patience, self._is_stuck = stream, patience, False

    def write(self, text: str) -> int:
        try:
            if self._patience is None or not self._has_file():
                return self._stream.write(text)
            self._stream.flush()
            data = text.encode(self._stream.encoding, "backslashreplace")
            for start in range(0, len(data), _AT_ONCE):
                if not self._is_ready(self._patience):
                    break
                os.write(self._stream.fileno(), data[start : start + _AT_ONCE])
        except (OSError, ValueError):  # a ValueError where it was closed within Python
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _has_file(self) -> bool:
        try:
            return self._stream.fileno() >= 0
        except (OSError, ValueError, AttributeError):
            return False

    def _is_ready(self, patience: float) -> bool:
        wait = 0.0 if self._is_stuck else patience
        self._is_stuck = not select.select([], [self._stream.fileno()], [], wait)[1]
        return not self._is_stuck

    def _give_up(self) -> None:
        """From here on, and for what is still in the stream's buffer, nothing is the place to write to."""
        if self._has_file():
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)


@contextmanager
def lasting_output(patience: float | None = None) -> Iterator[None]:
    """Lets what is printed be lost, rather than end the program, once stdout or stderr is closed on the other side.

    With `patience`, in seconds, also rather than wait longer for a reader that does not read. What the terminal's
    encoding has no sign for is printed as an escape.
    """
    _fill_places()
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (_Lasting(_present(stream), patience) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _fill_places() -> None:
    """Gives 0, 1 and 2, where they were closed from the start, to nothing.

    Else the next file that is opened, such as a run's metrics, would get what is meant for stderr.
    """
    for place in (0, 1, 2):
        try:
            os.fstat(place)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != place:
                os.dup2(nothing, place)
                os.close(nothing)


def _present(stream: TextIO | None) -> TextIO:
    """A stream that was closed from the start is None, of which libraries know nothing."""
    return stream if stream is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
