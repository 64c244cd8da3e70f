"""One contestant in a process of its own: python -m benchmarks.reasoning.worker OUT TASK CONTESTANT SEED [--steps N].

With --steps trains it for so many steps, or goes on with that, and measures it; without, times a few steps. Writes a
JSON file beside the run's folder, of the folder's name.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from benchmarks.reasoning import deblurring, measures
from benchmarks.reasoning.contestants import EQUILIBRIUM, QUESTIONS, configured, folder_of
from benchmarks.reasoning.plan import TRIAL, seconds_a_step
from deq_jax.tasks.presets import train
from deq_jax.training.disk import metrics
from deq_jax.training.disk.files import write_atomically
from deq_jax.training.process.compilation import use_persistent_cache

TIMING = "timing"
"""Folder of the trials."""


def path_of(out: Path, task: str, contestant: str, seed: int) -> Path:
    """Where a contestant's results are written."""
    return out / f"{folder_of(task, contestant, seed)}.json"


def time(out: Path, task: str, contestant: str, seed: int) -> dict[str, Any]:
    """A trial of a few steps: how long one takes, and how many parameters there are."""
    config = configured(task, contestant, seed, out / TIMING)
    # The test split is not what is timed.
    data = dataclasses.replace(config.data, test=2)
    _trained(config := dataclasses.replace(config, data=data, max_steps=TRIAL))
    return {"parameters": _parameters(config.out), "seconds": seconds_a_step(config.out)}


def compare(out: Path, task: str, contestant: str, seed: int, steps: int) -> dict[str, Any]:
    """A training of so many steps, and all that is asked of its network."""
    config, questions = configured(task, contestant, seed, out, steps=steps), QUESTIONS[task]
    _trained(config)
    lines = [line for line in metrics.read(config.out / "metrics.jsonl") if line["kind"] == "train"]
    measured = deblurring.measured if task == "deblur" else measures.measured
    return {
        "task": task,
        "contestant": contestant,
        "seed": seed,
        "parameters": _parameters(config.out),
        "steps": len(lines),
        "minutes": sum(line["step_seconds"] for line in lines) / 60,
        "asked": [list(questions.difficulties), list(questions.evaluations), questions.problems],
        **measured(config, questions, contestant),
    }


def _trained(config: Any) -> None:
    status = train(config)
    if status:
        raise SystemExit(status)


def _parameters(run: Path) -> int:
    return json.loads((run / "environment.json").read_text())["parameters"]


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reasoning.worker", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("task")
    parser.add_argument("contestant", default=EQUILIBRIUM)
    parser.add_argument("seed", type=int)
    parser.add_argument("--steps", type=int)
    given = parser.parse_args(arguments)
    use_persistent_cache()
    who = (given.out, given.task, given.contestant, given.seed)
    if given.steps is None:
        path, found = path_of(given.out / TIMING, *who[1:]), time(*who)
    else:
        path, found = path_of(*who), compare(*who, given.steps)
    write_atomically(path, (json.dumps(found, allow_nan=False) + "\n").encode())


if __name__ == "__main__":
    main()
