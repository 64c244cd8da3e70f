"""What a run says, and how far it is: a bar in a terminal and in a notebook, now and then a line in a log file."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 60.0
_SECONDS_BETWEEN_UPDATES = 0.5
_COLUMNS_OF_A_NOTEBOOK = 110


@runtime_checkable
class Progress(Protocol):
    """How far a run has come."""

    def advance(self, said: str) -> None:
        """One step further, of which this is to be said."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def close(self) -> None:
        """No more follows."""


class Console:
    """What a run says on stdout: nothing where it is to be quiet. Warnings and errors go to stderr, past this."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._is_quiet = is_quiet

    def say(self, text: str) -> None:
        """A line, at once."""
        if not self._is_quiet:
            print(text, flush=True)

    @contextmanager
    def progress(self, total: int, done: int) -> Iterator[Progress]:
        """The progress of so many steps, of which some are done, shown as suits the place."""
        progress = self._shown(total, done)
        try:
            yield progress
        finally:
            progress.close()

    def _shown(self, total: int, done: int) -> Progress:
        if self._is_quiet:
            return _Nothing()
        if is_notebook():
            return _NotebookBar(total, done)
        if sys.stderr is not None and sys.stderr.isatty():
            return _TerminalBar(total, done)
        return _Lines(total, done)


def is_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


class _Nothing:
    def advance(self, said: str) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class _TerminalBar:
    """A bar on stderr that moves in its place."""

    def __init__(self, total: int, done: int) -> None:
        self._bar = tqdm(total=total, initial=done, unit="step", dynamic_ncols=True)

    def advance(self, said: str) -> None:
        self._bar.update()
        self._bar.set_postfix_str(said, refresh=False)

    def say(self, text: str) -> None:
        self._bar.write(text)

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """Lines on stdout, where the evaluations are: a file or a pipe holds no bar."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._first, self._done = total, done, done
        self._began = self._last = time.monotonic()

    def advance(self, said: str) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES:
            return
        left = (now - self._began) / (self._done - self._first) * (self._total - self._done)
        self.say(f"step {self._done:,} of {self._total:,}, about {tqdm.format_interval(left)} left: {said}")

    def say(self, text: str) -> None:
        self._last = time.monotonic()
        print(text, flush=True)

    def close(self) -> None:
        pass


class _NotebookBar:
    """A line of text in the cell's output that is written over; no widgets are needed, and its last state is stored."""

    def __init__(self, total: int, done: int) -> None:
        from IPython.display import display  # a notebook has it

        self._total, self._first, self._done, self._said = total, done, done, ""
        self._began = self._last = time.monotonic()
        self._display: Any = display(self._bundle(), raw=True, display_id=True)

    def advance(self, said: str) -> None:
        self._done, self._said = self._done + 1, said
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_UPDATES:
            self._update()

    def say(self, text: str) -> None:
        print(text, flush=True)

    def close(self) -> None:
        self._update()

    def _update(self) -> None:
        self._last = time.monotonic()
        self._display.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, str]:
        elapsed = time.monotonic() - self._began
        bar = tqdm.format_meter(
            self._done,
            self._total,
            elapsed,
            initial=self._first,
            ncols=_COLUMNS_OF_A_NOTEBOOK,
            unit="step",
            postfix=self._said,
        )
        return {"text/plain": bar}
