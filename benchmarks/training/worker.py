"""The inside of a contestant's process: it waits for commands, one JSON object a line, and answers each with one.

Between commands it blocks on its standard input and uses no processor. Standard library and NumPy only.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.training.exchange import INITIAL


class Contestant(Protocol):
    """A model in training. ``k`` numbers the batches."""

    versions: dict[str, str]

    def step(self, k: int) -> None:
        """Forward, backward and the optimiser's update on batch ``k``; returns when all of it has happened."""

    def reset(self, weights: str = INITIAL) -> None:
        """To the weights of this name, with an optimiser that has seen nothing."""

    def inspect(self, k: int) -> tuple[dict[str, int], dict[str, np.ndarray]]:
        """Forward and backward on batch ``k`` at the present weights, without an update, and not for timing.

        Returns the counts "forward" (calls of the cell on the whole batch) and "backward" (products with its Jacobian
        or the transpose), and arrays in the common layout: the state "z" that the head is given, the adjoint "g" where
        there is one, and the gradient of every parameter under its name.
        """


def serve(build: Callable[[Path], Contestant]) -> None:
    """Build the contestant from the folder named on the command line, and obey until standard input ends."""
    answers = _claim_standard_output()
    folder = Path(sys.argv[1])
    contestant = None
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "start":
            contestant = build(folder)
            answer = _start(contestant)
        else:
            answer = _obey(contestant, command)
        print(json.dumps(answer), file=answers, flush=True)


def _claim_standard_output() -> Any:
    """Keep standard output for answers; whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _start(contestant: Contestant) -> dict[str, Any]:
    rest = _memory("VmRSS")
    started = time.perf_counter()
    contestant.step(0)
    first = time.perf_counter() - started
    return {"versions": contestant.versions, "rest_mb": rest, "first_step_seconds": first}


def _obey(contestant: Contestant, command: dict[str, Any]) -> dict[str, Any]:
    if command["do"] == "step":
        started = time.perf_counter()
        contestant.step(command["batch"])
        return {"seconds": time.perf_counter() - started}
    if command["do"] == "reset":
        contestant.reset(command["weights"])
        _forget_peak()
        return {}
    if command["do"] == "memory":
        return {"peak_mb": _memory("VmHWM")}
    if command["do"] == "inspect":
        counts, arrays = contestant.inspect(command["batch"])
        np.savez(command["file"], **arrays)
        return counts
    raise ValueError(f"unknown command {command}")


def _memory(field: str) -> float:
    """Resident memory now (VmRSS) or at its peak (VmHWM), in MB; the peak alone where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _forget_peak() -> None:
    """Start the peak anew, so that it is that of the steps to come, not of the compiler; where Linux lets us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
