"""How the processes of a run find each other: by hand, under Slurm, or on a TPU pod. JAX's own runtime joins them."""

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax

from deq_jax.training.errors import UserError

FLAGS = ("--coordinator", "--processes", "--process")
"""Address of process 0, number of processes, and this one's index: flags of the command line, no settings of a run."""
_BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""The same in the environment."""
_OF_A_SLURM_STEP = ("SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
SECONDS_TO_MEET = 120
_SECONDS_WITHOUT_HEARTBEAT = 30
_SECONDS_TO_PART = 10


class Place(NamedTuple):
    """One process among several; where all is None, JAX reads it from the cluster's own variables."""

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None


def without_flags(arguments: Sequence[str]) -> tuple[list[str], Mapping[str, str]]:
    """The other arguments of a command line, and the values of the flags that say which process this is."""
    left: list[str] = []
    given: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name in FLAGS:
            given[name] = value if equals else next(words, "")
        else:
            left.append(word)
    return left, given


def place_of(given: Mapping[str, str], environment: Mapping[str, str]) -> Place | None:
    """The place that the flags, or else the environment, give; None where this is the only process.

    Raises:
        UserError: it is given by half.
    """
    by_hand = {
        name: environment[variable] for name, variable in zip(FLAGS, _BY_HAND, strict=True) if environment.get(variable)
    }
    if named := given or by_hand:
        return _by_hand(named, FLAGS if given else _BY_HAND)
    if "SLURM_JOB_ID" in environment:
        return _under_slurm(environment)
    if environment.get("TPU_WORKER_HOSTNAMES", "").count(",") or "MEGASCALE_COORDINATOR_ADDRESS" in environment:
        return Place()
    return None


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


def _by_hand(given: Mapping[str, str], names: Sequence[str]) -> Place:
    words = dict(zip(FLAGS, names, strict=True))
    missing = [words[name] for name in FLAGS if not given.get(name)]
    if missing and given.get("--processes") != "1":
        raise UserError(
            f"{' and '.join(missing)} missing: several processes need the coordinator's address, their number and "
            f"each one's index, such as --coordinator 10.0.0.1:1234 --processes 2 --process 0."
        )
    numbers = {name: given.get(name, "0") for name in FLAGS[1:]}
    for name, value in numbers.items():
        if not value.isdecimal():
            raise UserError(f"{words[name]} is {value!r}; expected a whole number.")
    processes, process = (int(numbers[name]) for name in FLAGS[1:])
    if process >= processes:
        raise UserError(f"{words['--process']} is {process}; expected 0 to {processes - 1}, of {processes} processes.")
    coordinator = given.get("--coordinator", "")
    if processes > 1 and not coordinator.rpartition(":")[2].isdecimal():
        raise UserError(f"{words['--coordinator']} is {coordinator!r}; expected an address and a port, HOST:PORT.")
    return Place(coordinator, processes, process)


def _under_slurm(environment: Mapping[str, str]) -> Place | None:
    """A job's script, outside a step, is one process, unless it has asked for several."""
    several = any(environment.get(name, "1") != "1" for name in ("SLURM_NTASKS", "SLURM_NNODES"))
    if "SLURM_STEP_ID" not in environment:
        if not several:
            return None
        raise UserError(
            f"this is job {environment['SLURM_JOB_ID']} of Slurm, of several tasks, but outside a step, as under "
            f"salloc or in a batch script.\nStart it by srun: srun python train.py ..., or say --processes 1."
        )
    missing = [name for name in _OF_A_SLURM_STEP if name not in environment]
    if missing:
        raise UserError(
            f"this is a step of Slurm's job {environment['SLURM_JOB_ID']}, but {' and '.join(missing)} missing in the "
            f"environment.\nStart it by srun, which sets them, or say --processes 1."
        )
    return Place() if environment["SLURM_NTASKS"] != "1" else None
