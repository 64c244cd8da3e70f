"""One process a run: two would mix their metrics and delete each other's checkpoints."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from deq_jax.training.disk.files import owned, require_own, writing_to
from deq_jax.training.errors import UserError

if sys.platform != "win32":
    import fcntl

_FILE = ".lock"


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """Makes the run's folder where there is none, and keeps other processes out of it for as long as this lasts.

    The system lets go of the lock when the process ends, however that happens. A folder that cannot be written to needs
    none, and a file system without locks has none. The lock is on a file, which can be deleted, and the whole folder
    with it, so that another run begins there: within this `writing_to` looks, every time, that it is still the same.

    Raises:
        UserError: another process holds it, or the folder cannot be made.
    """
    with writing_to(run):
        run.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file = stack.enter_context((run / _FILE).open("a"))
            _lock(file, run)
            stack.enter_context(owned(run, run / _FILE, os.fstat(file.fileno())))
            require_own(run)  # it may have been deleted between the two
        yield


def _lock(file: IO[str], run: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"another process is training in {run}; wait for it or stop it.\nTo train beside it, choose another folder."
        ) from error
    except OSError as error:
        print(f"warning: {run} cannot be locked ({error.strerror}); start no second run in it.", file=sys.stderr)
