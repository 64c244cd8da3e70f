"""How the processes of a run find each other, and what is said when one is gone. JAX's own runtime joins them."""

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Iterator

import jax

from deq_jax.training.devices.places import Place
from deq_jax.training.errors import UserError

SECONDS_TO_MEET = 120
_SECONDS_WITHOUT_HEARTBEAT = 30
_SECONDS_TO_PART = 10


def join(place: Place | None, seconds: int = SECONDS_TO_MEET) -> None:
    """Waits for the other processes; ends this one with a message where they do not come in time.

    Raises:
        UserError: JAX has been used before.
    """
    if place is None or place.processes == 1 or jax.distributed.is_initialized():
        return

    def give_up() -> None:  # JAX would end the process, too, by an abort and a trace
        where = "" if place.coordinator is None else f" at {place.coordinator}"
        missing = "the other processes have not all" if place.process == 0 else f"the coordinator{where} has not"
        print(
            f"error: {missing} answered within {seconds} s.\n"
            f"Start as many processes as --processes says, each with the same coordinator, the address of process 0, "
            f"that all of them can reach.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(UserError.status)

    watch = threading.Timer(seconds, give_up)
    watch.daemon = True
    watch.start()
    try:
        jax.distributed.initialize(
            *place,
            initialization_timeout=2 * seconds,
            heartbeat_timeout_seconds=_SECONDS_WITHOUT_HEARTBEAT,
            shutdown_timeout_seconds=_SECONDS_TO_PART,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes cannot be joined: {str(error).splitlines()[0]}\n"
            f"They are joined before JAX is used: call jax.distributed.initialize() first, or start python train.py."
        ) from error
    finally:
        watch.cancel()


@contextlib.contextmanager
def told_of_others() -> Iterator[None]:
    """Turns what JAX says where another process is gone into a UserError; alone, it is left as it is."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
            raise
        atexit.register(_leave)
        raise UserError(
            f"another process of this run has ended, and so does this one. What it said tells why.\n"
            f"Started again, all of them, the run goes on from its last checkpoint.\n"
            f"JAX says: {str(error).splitlines()[0]}"
        ) from error


def _leave() -> None:
    """Ends the process before JAX's own farewell, which waits for those that are gone, and then aborts with a trace."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(UserError.status)
