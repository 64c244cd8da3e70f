"""How many steps each contestant takes, so that all of them train for as long."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.reasoning.contestants import EQUILIBRIUM, PRESETS, contestants
from deq_jax.training.disk import metrics

Plan = dict[str, Any]
TRIAL, _FIRST = 40, 8
"""Steps that are timed, of which the first ones, in which caches are cold, do not count."""


def plan_for(task: str, minutes: float | None, out: Path, timed: Callable[[str], Plan]) -> Plan:
    """What the contestants of a task are trained for: that of the folder, or else a new one, which is written there.

    A plan tells its `minutes`, and of every contestant its `parameters`, the `seconds` of a step and its `steps`.

    Args:
        task: what is learned.
        minutes: of training steps, alike for all; None: as long as the equilibrium takes for its preset's.
        out: where the plan is kept, so that a command that is given again goes on with the same runs.
        timed: gives `parameters` and `seconds` of a contestant.

    Raises:
        SystemExit: the folder's plan is for another time.
    """
    path = out / f"{task}-plan.json"
    if path.exists():
        plan = json.loads(path.read_text())
        if minutes is not None and minutes != plan["minutes"]:
            raise SystemExit(
                f"{path} plans {plan['minutes']:g} minutes, and --minutes is {minutes:g}: its runs cannot be made "
                f"longer or shorter. Leave --minutes out to go on with them, or give another --out."
            )
        return plan
    trials = {name: timed(name) for name in contestants(task)}
    if minutes is None:
        minutes = preset_steps(task) * trials[EQUILIBRIUM]["seconds"] / 60
    for trial in trials.values():
        trial["steps"] = max(1, round(60 * minutes / trial["seconds"]))
    plan = {"minutes": minutes, "contestants": trials}
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plan, indent=1) + "\n")
    return plan


def preset_steps(task: str) -> int:
    """How many steps the task's preset takes."""
    config = PRESETS[task]()
    return config.epochs * (config.data.epoch // config.batch_size)


def seconds_a_step(run: Path) -> float:
    """The median over a trial's steps, without the first ones."""
    steps = [line["step_seconds"] for line in metrics.read(run / "metrics.jsonl") if line["kind"] == "train"]
    return statistics.median(steps[_FIRST:] or steps)
