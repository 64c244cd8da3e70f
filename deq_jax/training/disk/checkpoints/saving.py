"""Checkpoints are written in the background by Orbax, and appear under their names whole and sealed, or not at all.

Orbax writes each one to a temporary folder and renames it; the seal is made in between. What cannot be written is one
OSError, where Orbax has many words for it.
"""

import errno
import gc
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp

from deq_jax.training.devices.agreement import is_first
from deq_jax.training.disk.checkpoints.places import place_of
from deq_jax.training.disk.checkpoints.seal import form_of, seal
from deq_jax.training.disk.files import require_own, sync, writing_to
from deq_jax.training.steps.step import TrainState

KEPT = 3
# Writes that were under way when another failed end within this, and complain that nobody waits for them.
_SECONDS_OF_COMPLAINTS = 0.3


class _Policy(NamedTuple):
    """Orbax's preservation policy that keeps the last ones, and one of the run's choice."""

    kept: Callable[[Sequence[int]], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        return [step in steps[-KEPT:] or step == self.kept(steps) for step in steps]


class Writer:
    """Of the checkpoints of a run.

    Args:
        run: its folder.
        kept: chooses, of the steps that there are, the one that is kept beside the last three.
        before: brings to the disk what a run needs that goes on from a checkpoint.
    """

    def __init__(self, run: Path, kept: Callable[[Sequence[int]], int | None], before: Callable[[], None]) -> None:
        self._run, self._before, self._place = run, before, place_of(run).absolute()
        self._sealing: tuple[int, float, dict[str, str]] | None = None
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Policy(kept),
            cleanup_tmp_directories=True,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._seal),
        )
        require_own(run)
        with _in_our_words(run):
            self._manager = ocp.CheckpointManager(self._place, options=options)

    def save(self, state: TrainState, seconds: float) -> None:
        """Saves the state under its step in the background, and drops the oldest beyond those kept.

        Raises:
            UserError: the folder cannot be written to, or could not be for the checkpoint before.
        """
        self.settle()
        require_own(self._run)
        self._sealing = int(state.step), seconds, form_of(state)
        with _in_our_words(self._run):
            self._manager.save(int(state.step), args=ocp.args.StandardSave(state))

    def settle(self) -> None:
        """Waits until what was saved is on the disk; raises as `save` does."""
        with _in_our_words(self._run):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Settles, and ends."""
        with _in_our_words(self._run):
            self._manager.close()  # Orbax's thread is waited for even where nothing may be written any more
        require_own(self._run)
        if is_first() and self._place.is_dir():
            sync(self._place)

    def _seal(self) -> None:
        """Called by Orbax's thread when all files are written, before the folder gets its name."""
        if not is_first():
            return
        assert self._sealing is not None
        step, seconds, form = self._sealing
        (temporary,) = self._place.glob(f"{step}.orbax-checkpoint-tmp*")
        with writing_to(self._run):
            self._before()
            seal(temporary, step, seconds, form)


@contextmanager
def opened(
    run: Path,
    kept: Callable[[Sequence[int]], int | None] = lambda steps: None,
    before: Callable[[], None] = lambda: None,
) -> Iterator[Writer]:
    """A `Writer` of checkpoints, which at its end has written all."""
    with _silence():
        writer = Writer(run, kept, before)
        try:
            yield writer
        finally:
            writer.close()


@contextmanager
def _in_our_words(run: Path) -> Iterator[None]:
    """What Orbax raises becomes what `writing_to` makes of an OSError, or of a folder that is lost."""
    refused = None
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        refused = _number_and_words(error)
    # Past the `except`, so that nothing holds on to the exception: a future complains when it is collected.
    if refused is not None:
        time.sleep(_SECONDS_OF_COMPLAINTS)
        gc.collect()
        with writing_to(run):
            raise OSError(*refused)


def _number_and_words(error: Exception) -> tuple[int, str]:
    """Of an OSError, or of TensorStore's ValueError, which has the number in its text; else in Orbax's own words."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    number = int(found[1]) if found else getattr(error, "errno", None)
    return (errno.EIO, str(error).split("\n")[0].rstrip(".")) if number is None else (number, os.strerror(number))


@contextmanager
def _silence() -> Iterator[None]:
    """Holds back the tracebacks that Orbax's threads log and asyncio's futures leave."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before, hook = [logger.disabled for logger in loggers], sys.unraisablehook
    sys.unraisablehook = lambda _: None
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
