"""Which of several processes this is: said by hand, by Slurm, or by a TPU pod."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from deq_jax.training.errors import UserError

FLAGS = ("--coordinator", "--processes", "--process")
"""Address of process 0, number of processes, and this one's index: flags of the command line, no settings of a run."""
_BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""The same in the environment."""
_OF_A_SLURM_STEP = ("SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


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
