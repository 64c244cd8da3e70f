"""The run: rounds in which every contestant takes one step, so that whatever drifts hits all alike."""

import contextlib
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.training.exchange import Arrays, load_arrays
from benchmarks.training.processes import Entry, FailedError, Process


class Measured(NamedTuple):
    """What was measured of one contestant."""

    name: str
    description: str
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


def compete(
    entries: list[Entry], pythons: dict[str, Path], folder: Path, *, steps: int, limit: float
) -> tuple[list[tuple[Measured, Arrays]], dict[str, str]]:
    """Run the contestants on the problem in ``folder``, ``steps`` rounds.

    Returns what was measured, still without `accuracy`, with the arrays that each returned at the first batch and the
    first weights; and, by name, why any other is missing.
    """
    failed: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        running: dict[str, Process] = {}
        started: dict[str, dict[str, Any]] = {}
        seconds: dict[str, list[float]] = {}

        def ask(name: str, **command: Any) -> dict[str, Any]:
            """The answer; empty where the contestant failed, which is then out of the run."""
            try:
                return running[name].ask(**command)
            except FailedError as error:
                failed[name] = str(error)
                running.pop(name).end()  # or it would go on working beside the others
                print(f"{name} is out: {error}", flush=True)
                return {}

        for entry in entries:
            python = pythons[entry.environment]
            running[entry.name] = stack.enter_context(Process(entry, python, folder, limit=limit))
            started[entry.name] = ask(entry.name, do="start")
            seconds[entry.name] = []
            if entry.name in running:
                print(f"{entry.name}: first step {started[entry.name]['first_step_seconds']:.1f} s", flush=True)
        for k in range(steps):
            for name in list(running):
                seconds[name] += ask(name, do="step", batch=k).values()
            print(f"round {k + 1} of {steps}: " + _line({name: seconds[name][-1] for name in running}), flush=True)

        measured = []
        for entry in entries:
            file = folder / f"{entry.name}.npz"
            last_batch = {"do": "inspect", "batch": steps - 1, "reset": False, "file": str(file)}
            first_batch = {"do": "inspect", "batch": 0, "reset": True, "file": str(file)}
            answers = [
                ask(entry.name, **command) if entry.name in running else {}
                for command in ({"do": "memory"}, last_batch, first_batch)
            ]
            if entry.name in running:
                row = _measured(entry, started[entry.name], seconds[entry.name], *answers)
                measured.append((row, load_arrays(file)))
    return measured, failed


def _measured(
    entry: Entry, start: dict[str, Any], seconds: list[float], memory: dict[str, Any], *counts: dict[str, int]
) -> Measured:
    last, first = counts
    return Measured(
        entry.name,
        entry.description,
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
