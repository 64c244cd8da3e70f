"""Contestants as processes that stay alive and take turns: only one is ever at work."""

import json
import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

from benchmarks import environments


class Entry(NamedTuple):
    """A contestant by name: its module and the environment that it needs."""

    name: str
    module: str
    environment: str
    description: str


ENTRIES = (
    Entry("chapter", "chapter", "torch", "the chapter's PyTorch code"),
    Entry("torchdeq", "torchdeq_ift", "torch", "torchdeq, ift=True, Anderson, stop_mode='rel'"),
    Entry("torchdeq-small-lam", "torchdeq_small_lam", "torch", "the same with lam=1e-10"),
    Entry("jaxopt", "jaxopt_anderson", "jax", "jaxopt Anderson, implicit_diff, BiCGStab, stock Flax cell"),
    Entry("optimistix", "optimistix_fixed_point", "jax", "optimistix, ImplicitAdjoint, GMRES, stock Flax cell"),
    Entry("backpropagation", "backpropagation", "own", "plain backpropagation, 25 weight-tied layers"),
    Entry("deq_jax-stock", "stock_layers", "own", "deq_jax around nnx.Conv and nnx.GroupNorm"),
    Entry("deq_jax", "ours", "own", "deq_jax as it is"),
)


class FailedError(Exception):
    """A contestant could not go on; the message says why."""


class Process:
    """One contestant's process; a context manager that ends it."""

    def __init__(self, entry: Entry, python: Path, folder: Path, *, limit: float):
        self.limit = limit
        self.log = folder / f"{entry.name}.log"
        command = [python, "-m", f"benchmarks.training.contestants.{entry.module}", folder]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=environments.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0
            )

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for the answer.

        Raises:
            FailedError: the process ended, or did not answer within the limit.
        """
        try:
            os.write(self.process.stdin.fileno(), (json.dumps(command) + "\n").encode())
        except OSError as error:
            raise FailedError(self._last_words()) from error
        return json.loads(self._line())

    def _line(self) -> bytes:
        line, until = b"", time.monotonic() + self.limit
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise FailedError(f"no answer within {self.limit:.0f} s")
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            if not part:
                raise FailedError(self._last_words())
            line += part
        return line

    def _last_words(self) -> str:
        """The last line of the log that names an error, or else the last line."""
        self.end()
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        named = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))]
        return ([*lines[-1:], *named] or [f"ended with status {self.process.returncode}"])[-1][:300]

    def end(self) -> None:
        """End the process, by force where it does not end by itself."""
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.process.stdout.close()


def interpreters(entries: list[Entry], torch_python: str | None) -> tuple[dict[str, Path], dict[str, str]]:
    """The interpreter of every environment that the entries need; and why there is none, for the others."""
    makers: dict[str, Callable[[], Path]] = {
        "own": environments.own,
        "jax": environments.jax_peers,
        "torch": lambda: environments.torch_peers(torch_python),
    }
    found, missing = {}, {}
    for name in dict.fromkeys(entry.environment for entry in entries):
        try:
            found[name] = makers[name]()
        except environments.UnavailableError as error:
            missing[name] = str(error)
    return found, missing
