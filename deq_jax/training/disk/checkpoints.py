"""Checkpoints of a run: saved whole or not at all, verified before they are believed.

Orbax writes each one to a temporary folder and renames it. It does not notice a byte that changed on disk, nor does it
read a torn file quietly, so every checkpoint carries the digests of its files and is checked against them first.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from deq_jax.training.devices.agreement import is_first
from deq_jax.training.disk.files import set_aside, write_atomically, writing_to
from deq_jax.training.disk.orbax import write
from deq_jax.training.errors import UserError
from deq_jax.training.steps.step import TrainState

KEPT = 3
_SEAL = "seal.json"


class Restored(NamedTuple):
    """A state, and the seconds of training that led to it."""

    state: TrainState
    seconds: float


class _Policy(NamedTuple):
    """Orbax's preservation policy that keeps the last ones, and one of the run's choice."""

    kept: Callable[[Sequence[int]], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        return [step in steps[-KEPT:] or step == self.kept(steps) for step in steps]


def opened(run: Path, kept: Callable[[Sequence[int]], int | None] = lambda steps: None) -> ocp.CheckpointManager:
    """The writer of `run`/checkpoints. Close it, or use it in a `with`.

    It keeps the last three, and beside them the one that `kept` chooses of the steps that there are.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=_Policy(kept),
        cleanup_tmp_directories=True,
        # A checkpoint is under a megabyte and takes 50 ms: not worth a thread that could lose it at exit.
        enable_async_checkpointing=False,
    )
    with writing_to(run):
        return ocp.CheckpointManager(_folder(run).absolute(), options=options)


def save(manager: ocp.CheckpointManager, state: TrainState, seconds: float) -> None:
    """Saves the state under its step, and drops the oldest beyond those kept.

    Raises:
        UserError: the folder cannot be written to.
    """
    step = int(state.step)
    folder = Path(manager.directory) / str(step)
    with writing_to(folder.parent.parent):
        write(manager, step, state)
        if is_first():
            seal = {"step": step, "seconds": seconds, "form": _form(state), "files": _digests(folder)}
            write_atomically(folder / _SEAL, json.dumps(seal, indent=1))


def restore(run: Path, like: TrainState, step: int | None = None) -> Restored | None:
    """The latest readable checkpoint of a run, in the structure of `like`; None where there is none yet.

    A damaged one is passed over with a line on stderr. Nothing is written. With a `step` it is that one or none.

    Raises:
        UserError: every checkpoint is damaged, or the latest sound one is not of this model.
    """
    damaged = []
    for candidate in reversed(steps_of(run)) if step is None else [step]:
        folder = folder_of(run, candidate)
        seal = _read_seal(folder)
        if seal is None or not _is_intact(folder, seal):
            damaged.append(folder)
            continue
        for other in damaged:
            print(f"warning: {other} is damaged; continuing from step {candidate}.", file=sys.stderr)
        if seal["form"] != _form(like):
            raise UserError(
                f"{folder} is of another model: {_difference(seal['form'], _form(like))}.\n"
                f"Give the model and the version of deq_jax that the run was started with, or choose another folder."
            )
        return Restored(_read(folder, like), seal["seconds"])
    if step is not None:
        raise UserError(f"{folder_of(run, step)} is damaged. Choose another: {', '.join(map(str, steps_of(run)))}.")
    # One without a seal was still being written when the run ended, so a run with no other has simply not begun.
    if any((folder / _SEAL).exists() for folder in damaged):
        raise UserError(
            f"no checkpoint in {_folder(run)} is readable: {', '.join(folder.name for folder in damaged)}.\n"
            f"Bring one back from a copy, or start afresh in another folder."
        )
    return None


def latest_before(run: Path, step: int) -> int | None:
    """The step of the latest checkpoint before another step; None where there is none."""
    return max((earlier for earlier in steps_of(run) if earlier < step), default=None)


def folder_of(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return _folder(run) / str(step)


def set_aside_after(run: Path, step: int) -> None:
    """Renames the checkpoints of later steps, so that `restore` passes over them and they can be saved anew."""
    with writing_to(run):
        for later in steps_of(run):
            if later > step:
                set_aside(folder_of(run, later), f"damaged-{later}-{{}}")


def steps_of(run: Path) -> list[int]:
    """The steps that there are checkpoints of, in order.

    Raises:
        UserError: a file is in the place of their folder.
    """
    folder = _folder(run)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder of checkpoints; move it away.")
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()) if folder.is_dir() else []


def _folder(run: Path) -> Path:
    return run / "checkpoints"


def _read(folder: Path, like: TrainState) -> TrainState:
    # Neither folders nor files are made: an evaluation may read a run that it cannot write.
    options = ocp.CheckpointManagerOptions(create=False, save_root_metadata=False, enable_async_checkpointing=False)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    with ocp.CheckpointManager(folder.parent.absolute(), options=options) as manager:
        return manager.restore(int(folder.name), args=ocp.args.StandardRestore(abstract))


def _read_seal(folder: Path) -> dict | None:
    try:
        seal = json.loads((folder / _SEAL).read_text())
        return seal if {"files", "form", "seconds"} <= seal.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _form(state: TrainState) -> dict[str, str]:
    """Type and shape of every array, by its place in the state."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): str(jax.typeof(leaf)) for path, leaf in leaves}


def _difference(theirs: dict[str, str], ours: dict[str, str]) -> str:
    """The first array that differs, in words."""
    name = next(name for name in (*theirs, *ours) if theirs.get(name) != ours.get(name))
    return f"it has {theirs.get(name, 'nothing')} at {name}, and this one {ours.get(name, 'nothing')}"


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint but its seal."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SEAL)
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _is_intact(folder: Path, seal: dict) -> bool:
    """Whether every file of the seal is as it was; what a file manager or a network drive has added does not matter."""
    return all((folder / name).is_file() and _digest(folder / name) == digest for name, digest in seal["files"].items())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
