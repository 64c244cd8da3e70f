"""The latest checkpoint of a run that can be believed."""

import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

from deq_jax.training.disk.checkpoints import seal as seals
from deq_jax.training.disk.checkpoints.places import folder_of, place_of, steps_of
from deq_jax.training.errors import UserError
from deq_jax.training.steps.step import TrainState

_SECONDS_OF_REMOVAL = 0.5
"""In which a run that goes on beside its reader has removed an old checkpoint, once it has begun to."""


class Restored(NamedTuple):
    """A state, and the seconds of training that led to it."""

    state: TrainState
    seconds: float


def restore(run: Path, like: TrainState, step: int | None = None) -> Restored | None:
    """The latest readable checkpoint of a run, in the structure of `like`; None where there is none yet.

    A damaged one is passed over with a line on stderr. Nothing is written. With a `step` it is that one or none.

    Raises:
        UserError: every checkpoint is damaged, or the latest sound one is not of this model.
    """
    passed_over: list[epath.Path] = []
    for candidate in reversed(steps_of(run)) if step is None else [step]:
        folder = folder_of(run, candidate)
        seal = seals.read(folder)
        if seal is None or not seals.is_intact(folder, seal):
            if not _is_being_removed(folder):
                passed_over.append(folder)
            continue
        for other in passed_over:
            what = "damaged" if _has_seal(other) else "unfinished"
            print(f"warning: {other} is {what}; continuing from step {candidate}.", file=sys.stderr)
        if seal.form != seals.form_of(like):
            raise UserError(
                f"{folder} is of another model: {_difference(seal.form, seals.form_of(like))}.\n"
                f"Give the model and the version of deq_jax that the run was started with, or choose another folder."
            )
        return Restored(_read(folder, like), seal.seconds)
    if step is not None:
        raise UserError(f"{folder_of(run, step)} is damaged. Choose another: {', '.join(map(str, steps_of(run)))}.")
    # One without a seal was still being written when the run ended, so a run with no other has simply not begun.
    if any(_has_seal(folder) for folder in passed_over):
        raise UserError(
            f"no checkpoint in {place_of(run)} is readable: {', '.join(folder.name for folder in passed_over)}.\n"
            f"Bring one back from a copy, or start afresh in another folder."
        )
    return None


def _has_seal(folder: epath.Path) -> bool:
    return (folder / seals.FILE).exists()


def _is_being_removed(folder: epath.Path) -> bool:
    """Whether it is no damage: the run goes on, and has newer ones in its place."""
    time.sleep(_SECONDS_OF_REMOVAL)
    return not folder.exists()


def _read(folder: epath.Path, like: TrainState) -> TrainState:
    # The state alone: what Orbax has written beside it is not sealed. Nothing is made; a run may lie where none can be.
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        return checkpointer.restore((folder / seals.STATE).absolute(), args=ocp.args.StandardRestore(abstract))


def _difference(theirs: dict[str, str], ours: dict[str, str]) -> str:
    """The first array that differs, in words."""
    name = next(name for name in (*theirs, *ours) if theirs.get(name) != ours.get(name))
    return f"it has {theirs.get(name, 'nothing')} at {name}, and this one {ours.get(name, 'nothing')}"
