"""What a program prints when nobody reads it any more: a closed pipe or terminal must not end a training."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class _Lasting:
    """A text stream that takes what its reader no longer does."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self) -> None:
        """From here on, and for what is still in the stream's buffer, nothing is the place to write to."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Lets what is printed be lost, rather than end the program, once stdout or stderr is closed on the other side."""
    before = sys.stdout, sys.stderr
    # A stream that was closed from the start is None, which print takes.
    sys.stdout, sys.stderr = (stream and _Lasting(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before
