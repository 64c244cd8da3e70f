"""What a run of generated problems, or on text, achieves, however hard they are and however far they are solved.

`measured_run` gives `loss`, the task's metrics (`exact`, the share of problems wholly right, among those of puzzles),
`forward_iterations` (evaluations of f a problem, on average), `forward_residual`, `converged`, `count`, `step`, what
the `data` are, and the solve's `tol` and `max_iter`. Where answers of a larger residual than `abstain` are refused, it
is told what that is worth: see `abstention.told`. A value that is not finite is None.
"""

import dataclasses
import importlib
import math
from pathlib import Path
from typing import Any

from deq_jax.tasks.abstention import abstaining, told
from deq_jax.training.devices.devices import all_devices
from deq_jax.training.disk.folder import opener_of, read_config
from deq_jax.training.errors import UserError
from deq_jax.training.loading import restored
from deq_jax.training.promises import evaluation_of
from deq_jax.training.settings.solves import filled_from
from deq_jax.training.steps.batches import eval_batches
from deq_jax.training.steps.evaluation import evaluate
from deq_jax.training.steps.solving import in_precision
from deq_jax.training.steps.step import make_eval_step
from deq_jax.training.task import Task

MEASURED = ("deq_jax.tasks.puzzles.task", "deq_jax.tasks.inverse.task", "deq_jax.tasks.text.task")
"""The tasks that are measured so, as config.json names them."""


def measured_run(
    run: Path,
    data_dir: Path | None = None,
    split: str = "test",
    tol: float | None = None,
    max_iter: int | None = None,
    checkpoint: str | int = "last",
    difficulty: int | None = None,
    problems: Path | None = None,
    abstain: float | None = None,
    beta: float | None = None,
) -> dict[str, Any]:
    """What a checkpoint of a run achieves; arguments as those of `deq_jax.evaluate`.

    Raises:
        UserError: no run, no such checkpoint, a difficulty that there is not, or a setting that no solve can use.
    """
    if data_dir is not None or split != "test":
        raise UserError(
            "--data-dir and --split go with runs on images; what this run learns from is drawn anew in every step."
        )
    room = importlib.import_module(opener_of(run) or "")
    config = with_solve(read_config(run, room.Config), tol, max_iter, beta)
    if difficulty is not None and problems is not None:
        raise UserError("--difficulty and --problems exclude each other: a file's problems are as hard as they are.")
    if difficulty is not None:
        config = room.of_difficulty(config, difficulty)
    task = room.open_task(config, ["test"]) if problems is None else room.of_file(config, problems)
    return measured(run, task, config, checkpoint, abstain)


def measured(
    run: Path, task: Task, config: Any, checkpoint: str | int = "last", abstain: float | None = None
) -> dict[str, Any]:
    """The same of a task and a configuration, which need not be those of the run's folder."""
    counted = evaluation_of(task) if abstain is None else abstaining(evaluation_of(task), abstain)
    model, state = restored(run, task, config, checkpoint)
    devices = all_devices()
    step = devices.jitted(in_precision(config.precision, make_eval_step(model, counted)))
    batches = eval_batches(task.data.splits["test"], devices.even(config.batch_size))
    means = evaluate(step, devices.everywhere(state), map(devices.spread, batches))
    assert means is not None
    means["converged"] = means.pop("forward_converged")
    if abstain is not None:
        means = told(means) | {"abstain": abstain}
    count, solver = int(means.pop("samples")), filled_from(config.evaluation, config.solver)
    return {name: value if math.isfinite(value) else None for name, value in means.items()} | {
        "count": count,
        "step": int(state.step),
        "data": task.data.name,
        "tol": solver.tol,
        "max_iter": solver.max_iter,
    }


def with_solve[Configuration: Any](
    config: Configuration, tol: float | None, max_iter: int | None, beta: float | None = None
) -> Configuration:
    """The configuration to evaluate by: the run's, but for what is given here.

    Raises:
        UserError: no solve can be so.
    """
    named = {"tol": tol, "max_iter": max_iter, "beta": beta}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    try:
        return dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, **given))
    except ValueError as error:
        raise UserError(f"--{str(error).replace('_', '-')}") from error
