"""The run: rounds in which every contestant takes one step, so that whatever drifts hits all alike."""

import contextlib
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.training.exchange import INITIAL, Arrays, load_arrays
from benchmarks.training.processes import Entry, FailedError, Process


class Measured(NamedTuple):
    """What was measured of one contestant."""

    name: str
    description: str
    weights: str
    """From which it trained."""
    versions: dict[str, str]
    first_step_seconds: float
    """Of the very first step, compilation included; it is not among `step_seconds`."""
    step_seconds: list[float]
    """Forward, backward and update, one a round."""
    forward: list[int]
    """Calls of the cell on the whole batch, repeats in the backward pass included: at the first and the last batch."""
    backward: list[int]
    """Products with the cell's Jacobian or its transpose, likewise, the parameters' gradient included."""
    rest_mb: float
    """Resident memory before the first step, with libraries, weights and batches loaded."""
    peak_mb: float
    """Peak of resident memory over the timed steps."""
    accuracy: dict[str, float]
    """The fields of `benchmarks.training.reference.Accuracy`, at the first batch."""

    @property
    def median(self) -> float:
        """Seconds a step."""
        return statistics.median(self.step_seconds)


class Run(NamedTuple):
    """What a contestant returned from some weights."""

    measured: Measured
    """Still without `accuracy`."""
    arrays: Arrays
    """Of the first batch."""


def compete(
    entries: list[Entry],
    pythons: dict[str, Path],
    folder: Path,
    *,
    weights: Sequence[str] = (INITIAL,),
    steps: int,
    limit: float,
) -> tuple[list[Run], dict[str, str]]:
    """Run the contestants on the problem in ``folder``, ``steps`` rounds from each of the weights.

    Returns what came out, and, by name, why a contestant is missing.
    """
    with contextlib.ExitStack() as stack:
        field = _Field(steps)
        for entry in entries:
            process = stack.enter_context(Process(entry, pythons[entry.environment], folder, limit=limit))
            field.start(entry, process)
        return [run for name in weights for run in field.measure(name, folder)], field.failed


class _Field:
    """The contestants that still run."""

    def __init__(self, steps: int):
        self.steps = steps
        self.running: dict[str, tuple[Entry, Process]] = {}
        self.started: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, str] = {}

    def start(self, entry: Entry, process: Process) -> None:
        """Let it build its model, and take the step that compiles."""
        self.running[entry.name] = entry, process
        self.started[entry.name] = self.ask(entry.name, do="start")
        if entry.name in self.running:
            print(f"{entry.name}: first step {self.started[entry.name]['first_step_seconds']:.1f} s", flush=True)

    def ask(self, name: str, **command: Any) -> dict[str, Any]:
        """The answer; empty where the contestant fails, which is then out of the run."""
        if name not in self.running:
            return {}
        try:
            return self.running[name][1].ask(**command)
        except FailedError as error:
            self.failed[name] = str(error)
            self.running.pop(name)[1].end()  # or it would go on working beside the others
            print(f"{name} is out: {error}", flush=True)
            return {}

    def measure(self, weights: str, folder: Path) -> Iterator[Run]:
        """Rounds from these weights, then what each contestant says of its last and its first batch."""
        seconds: dict[str, list[float]] = {name: [] for name in self.running}
        for name in list(self.running):
            self.ask(name, do="reset", weights=weights)
        for k in range(self.steps):
            for name in list(self.running):
                seconds[name] += self.ask(name, do="step", batch=k).values()
            line = _line({name: seconds[name][-1] for name in self.running})
            print(f"{weights} weights, round {k + 1} of {self.steps}: {line}", flush=True)
        for name, (entry, _) in list(self.running.items()):
            file = folder / f"{name}.{weights}.npz"
            memory = self.ask(name, do="memory")
            last = self.ask(name, do="inspect", batch=self.steps - 1, file=str(file))
            self.ask(name, do="reset", weights=weights)
            first = self.ask(name, do="inspect", batch=0, file=str(file))
            if name in self.running:
                row = _measured(entry, weights, self.started[name], seconds[name], memory, last, first)
                yield Run(row, load_arrays(file))


def _measured(
    entry: Entry,
    weights: str,
    start: dict[str, Any],
    seconds: list[float],
    memory: dict[str, Any],
    *counts: dict[str, int],
) -> Measured:
    last, first = counts
    return Measured(
        entry.name,
        entry.description,
        weights,
        start["versions"],
        start["first_step_seconds"],
        seconds,
        [first["forward"], last["forward"]],
        [first["backward"], last["backward"]],
        start["rest_mb"],
        memory["peak_mb"],
        {},
    )


def _line(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
