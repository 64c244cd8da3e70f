"""Where a run begins, or goes on."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from deq_jax.training.disk import checkpoints, environment, metrics
from deq_jax.training.disk.best import is_stalled, results
from deq_jax.training.disk.folder import read_config
from deq_jax.training.loading import restored
from deq_jax.training.plan import Plan
from deq_jax.training.steps.step import TrainState


class Start(NamedTuple):
    """The state that the next step takes, and what is known of it."""

    state: TrainState
    step: int
    seconds: float
    is_evaluated: bool
    is_last: bool
    """Nothing is left to do."""


def find_start(plan: Plan, fresh: TrainState, kind: type) -> Start:
    """The latest readable checkpoint, or else the fresh state, with another run's weights where they are asked for.

    Writes nothing: a finished run may lie in a read-only folder. `kind` is that of a run's configuration.

    Raises:
        UserError: no checkpoint is readable, or there is nothing to begin with.
    """
    settings = plan.settings
    found = checkpoints.restore(settings.out, fresh)
    state, seconds = found or (_begun(plan, fresh, kind), 0.0)
    step = int(state.step)
    records = [record for record in metrics.read(settings.out / "metrics.jsonl") if record["step"] <= step]
    known = {record["kind"] for record in records if record["step"] == step}
    is_evaluated = known >= {metrics.KIND_OF[split] for split in plan.evaluated}
    measured, result = results(records, plan.task.result), plan.task.result
    is_last = is_evaluated and (step >= plan.last_step or is_stalled(measured, result, settings.validation.patience))
    # An evaluation after the checkpoint has taken its time, too.
    seconds = max([seconds, *(record["seconds"] for record in records[-1:])])
    return Start(state, step, seconds, is_evaluated, is_last)


def make_way(out: Path, step: int) -> None:
    """Moves what later steps have left out of the way of those that write it again; says what is missing or changed."""
    checkpoints.set_aside_after(out, step)
    path = out / "metrics.jsonl"
    metrics.drop_after(path, step)
    missing = step - len({record["step"] for record in metrics.read(path) if record["kind"] == "train"})
    if missing:
        print(
            f"warning: {path} lacks {missing:,} of the first {step:,} steps; training goes on, its account does not.",
            file=sys.stderr,
        )
    _warn_of_changes(out)


def _begun(plan: Plan, state: TrainState, kind: type) -> TrainState:
    """The state before the first step, with the weights of the run that `settings.initial` names.

    They are those that its evaluations use: averages where it keeps any. `kind` is that of the configurations of both.

    Raises:
        UserError: there is no such run or checkpoint, or it is of another model.
    """
    initial = plan.settings.initial
    if initial.run is None:
        return state
    theirs: Any = read_config(initial.run, kind)
    settings = dataclasses.replace(plan.settings, optimizer=theirs.optimizer, average_decay=theirs.average_decay)
    _, other = restored(initial.run, plan.task, settings, initial.checkpoint)
    weights = jax.tree.map(jnp.copy, other.evaluated)
    average = jax.tree.map(jnp.copy, weights) if state.average else ()
    return state._replace(params=weights[0], batch_stats=weights[1], average=average)


def _warn_of_changes(out: Path) -> None:
    """Says what the result depends on to the last bit, and is other than when the run was last started."""
    for name, (was, now) in environment.changes_since(environment.latest(out)).items():
        print(
            f"warning: {name}: {now}, where the run had {was}; what follows may differ from an uninterrupted run "
            f"in the last bits.",
            file=sys.stderr,
        )
