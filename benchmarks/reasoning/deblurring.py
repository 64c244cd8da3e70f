"""What networks that undo a blur are worth, run on past the evaluations that they were trained with."""

import dataclasses
from typing import Any

import jax
import numpy as np

from benchmarks.reasoning.contestants import EQUILIBRIUM, Questions
from deq_jax.tasks.inverse.config import Config
from deq_jax.tasks.inverse.task import open_task
from deq_jax.tasks.measuring import measured as means
from deq_jax.tasks.measuring import with_solve
from deq_jax.training.loading import restored
from deq_jax.training.steps.model import opened

TOL = 1e-7
"""Below what float32 resolves: every evaluation that is allowed is made, and none is left out for being done."""
PLAIN = "equilibrium, by plain iteration"
"""The equilibrium's cell without Anderson acceleration, as the unrolled network evaluates it."""
_PATCH = 3
"""Of the test split the one that is shown."""


def measured(config: Config, questions: Questions, contestant: str) -> dict[str, Any]:
    """All that is asked of one run, as JSON values.

    `psnr` and `residual`: by evaluations at most, means over the test patches, None where they are not finite. `plain`:
    the same ratios by plain iteration, of the equilibrium. `patches`: by the fewest and the most evaluations of the
    training and of ten times as many what becomes of one patch, beside what it was (`clean`) and what was `measured`.
    """
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, test=questions.problems))
    rows = {str(number): _means(config, number) for number in questions.evaluations}
    found: dict[str, Any] = {
        name: {key: row[name] for key, row in rows.items()} for name in ("psnr", "forward_residual")
    }
    if contestant == EQUILIBRIUM:
        plain = dataclasses.replace(config, solver=dataclasses.replace(config.solver, method="forward-iteration"))
        found["plain"] = {str(number): _means(plain, number)["psnr"] for number in questions.evaluations}
    trained = config.solver.max_iter
    return found | {"trained": trained, "patches": _patches(config, (trained, 10 * trained))}


def _means(config: Config, max_iter: int) -> dict[str, Any]:
    config = with_solve(config, TOL, max_iter)
    return means(config.out, open_task(config, ["test"]), config)


def _patches(config: Config, numbers: tuple[int, ...]) -> dict[str, Any]:
    pair = open_task(config, ["test"]).data.splits["test"]
    one = jax.tree.map(lambda array: array[_PATCH : _PATCH + 1], pair)
    patches = {"clean": one.clean[0], "measured": one.measured[0]}
    for number in numbers:
        limited = with_solve(config, TOL, number)
        fresh, state = restored(config.out, open_task(limited, []), limited)
        solve = jax.jit(opened(fresh, training=False)(*state.evaluated))
        patches[str(number)] = np.asarray(solve(one.measured).value)[0, ..., 0]
    # What has diverged is shown as grey, and white or black as far as it goes beyond them.
    shown = {name: np.clip(np.nan_to_num(patch, nan=0.5), 0, 1) for name, patch in patches.items()}
    return {name: np.round(patch, 2).tolist() for name, patch in shown.items()}
