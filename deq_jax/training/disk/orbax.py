"""Orbax's save: what cannot be written is one OSError, where Orbax has many words for it."""

import errno
import gc
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import orbax.checkpoint as ocp
from jaxtyping import PyTree

# Writes that were under way when another failed end within this, and complain that nobody waits for them.
_SECONDS_OF_COMPLAINTS = 0.3


def write(manager: ocp.CheckpointManager, step: int, state: PyTree) -> None:
    """Saves the state under its step.

    Raises:
        OSError: the file system refuses; nothing is printed.
    """
    number = None
    with _silence():
        try:
            manager.save(step, args=ocp.args.StandardSave(state))
        except (OSError, ValueError) as error:
            number = _errno(error)
            if number is None:
                raise
        # Past the `except`, so that nothing holds on to the exception: a future complains when it is collected.
        if number is not None:
            time.sleep(_SECONDS_OF_COMPLAINTS)
            gc.collect()
    if number is not None:
        raise OSError(number, os.strerror(number))


def _errno(error: OSError | ValueError) -> int | None:
    """Of an OSError, or of TensorStore's ValueError, which has the number in its text."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return int(found[1]) if found else None


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
