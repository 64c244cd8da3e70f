"""A run read from its folder."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx

from deq_jax.training.disk import checkpoints, metrics
from deq_jax.training.disk.best import Choice, chosen
from deq_jax.training.disk.folder import opener_of, read_config, require_task
from deq_jax.training.errors import UserError
from deq_jax.training.settings.settings import Settings
from deq_jax.training.steps.model import opened
from deq_jax.training.steps.optimizer import build_optimizer
from deq_jax.training.steps.solving import evaluation_model
from deq_jax.training.steps.step import TrainState, create_state
from deq_jax.training.task import Task

_TASKS = "deq_jax.tasks."


class Run(NamedTuple):
    """A run, as its folder tells of it."""

    model: nnx.Module
    """With the weights of the checkpoint, or their average where the run keeps one; set to evaluation, and
    solving as the run's evaluations do."""
    settings: Any
    """A [`deq_jax.training.Settings`][]; of a preset's run the configuration that ``train.py`` was given."""
    metrics: list[metrics.Record]
    """The lines of ``metrics.jsonl``, as dictionaries."""
    step: int
    """Updates that the weights have had; an unfinished run is loaded as far as it came."""


def load(run: Path | str, task: Task | None = None, *, checkpoint: Choice = "last") -> Run:
    """Read a run: its model with the weights of a checkpoint, its settings, and its metrics.

    Nothing is trained, and nothing is written. A damaged checkpoint is passed over for the one before it, with a line
    on stderr.

    Args:
        run: the folder that ``fit`` or ``train.py`` wrote.
        task: what was trained, as it was given to ``fit``: a folder cannot hold a model of your own. None for a
            preset's, whose data are read for it.
        checkpoint: ``"last"``, the latest; ``"best"``, that of the best result on the test split among those that are
            there, which a run keeps beside the last; or the step of one.

    Returns:
        A [`deq_jax.training.Run`][].

    Raises:
        UserError: it is no run's folder, is damaged, holds no checkpoint yet, or none of that step, or was trained with
            another model.
    """
    run = Path(run)
    if task is None:
        task, settings, config = _opened_again(run)
    elif not isinstance(task, Task):
        raise UserError(f"load was given a {type(task).__name__} as the task; expected the training.Task of the run.")
    else:
        require_task(run, None, f"training.load({str(run)!r}) reads it")
        settings = config = read_config(run, Settings)
    model, state = restored(run, task, settings, checkpoint)
    return Run(
        model=opened(model, training=False)(*state.evaluated),
        settings=config,
        metrics=metrics.read(run / "metrics.jsonl"),
        step=int(state.step),
    )


def restored(
    run: Path, task: Task, settings: Settings, checkpoint: str | int = "last"
) -> tuple[nnx.Module, TrainState]:
    """A fresh model of the task, solved as in an evaluation, and the state of a checkpoint of the run.

    Raises:
        UserError: there is none, or it is of another model.
    """
    model = evaluation_model(task, settings)
    # The checkpoint holds the optimiser's moments, too; how long its schedule is does not change their form.
    optimizer = build_optimizer(settings.optimizer, total_steps=1)
    like = create_state(model, optimizer, keeps_average=settings.average_decay is not None)
    restored = checkpoints.restore(run, like, chosen(run, checkpoint, task.result))
    if restored is None:
        raise UserError(f"{run} holds no checkpoint. Start its training again to get one.")
    return model, restored.state


def _opened_again(run: Path) -> tuple[Task, Settings, Any]:
    """Task, settings and configuration of a run of a task that has a name."""
    opener = opener_of(run)
    if opener is None or not opener.startswith(_TASKS):
        raise UserError(
            f"{run} holds a run of a task of one's own, whose model a folder cannot hold.\n"
            f"Give the task that it was trained on: training.load({str(run)!r}, task)."
        )
    # Not imported above: what trains any task knows none.
    return importlib.import_module(opener).reopened(run)
