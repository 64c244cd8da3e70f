import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deq_jax.training import UserError
from deq_jax.training.devices.places import Place, place_of, without_flags
from tests.runs import records, without_times

ROOT = Path(__file__).parents[1]
SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "n[0-1]", "SLURM_NTASKS": "2"}
SLURM |= {"SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
FLAGS = {"--coordinator": "10.0.0.1:1234", "--processes": "2", "--process": "1"}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(folder, port, process, *arguments, processes=2):
    """One process of several, on one device of the CPU."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(processes),
        "JAX_PROCESS_ID": str(process),
    }
    command = [sys.executable, "-m", "tests.one_of_several", str(folder), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def start_both(folder, *arguments):
    port = free_port()
    return [start(folder, port, process, *arguments) for process in range(2)]


def ended(processes):
    """Statuses, and what was said."""
    said = [process.communicate(timeout=300)[0] for process in processes]
    return [process.returncode for process in processes], said


@pytest.mark.long
def test_two_processes_train_what_one_does_and_go_on_where_one_was_killed(tmp_path):
    statuses, said = ended(start_both(tmp_path / "two", "--epochs", 6))
    assert statuses == [0, 0], said
    (status,), said = ended([start(tmp_path / "one", 0, 0, "--epochs", 6, processes=1)])
    assert status == 0, said
    two, one = (without_times(records(tmp_path / name)) for name in ("two", "one"))
    np.testing.assert_allclose([line["loss"] for line in two], [line["loss"] for line in one], rtol=1e-4)

    both = start_both(tmp_path / "killed", "--epochs", 6, "--slow", 5)
    while not (tmp_path / "killed" / "checkpoints" / "6").exists() and both[0].poll() is None:
        time.sleep(0.1)
    both[1].send_signal(signal.SIGKILL)
    (status, _), (said, _) = ended(both)
    assert status
    # JAX's own runtime may be the first to notice, and end the process with its words.
    assert "another process of this run has ended" in said or "another task died" in said
    statuses, said = ended(start_both(tmp_path / "killed", "--epochs", 6))
    assert statuses == [0, 0], said
    assert without_times(records(tmp_path / "killed")) == two


def test_a_process_with_another_seed_is_named(tmp_path):
    port = free_port()
    both = [start(tmp_path / "run", port, process, "--seed", process) for process in range(2)]
    statuses, said = ended(both)
    assert all(statuses)
    assert all("process 1 differs from process 0: seed 1 instead of 0" in text for text in said)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_place_is_read_from_flags_or_else_from_the_environment():
    by_hand = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
    assert place_of(FLAGS, by_hand) == Place("10.0.0.1:1234", 2, 1)
    assert place_of({}, by_hand | SLURM) == Place("a:1", 4, 3)
    assert place_of({}, SLURM) == Place()
    assert place_of({}, {"TPU_WORKER_HOSTNAMES": "a,b"}) == Place()
    assert place_of({}, {}) is None
    # A script of a job is one process, and so is a step of one task.
    assert place_of({}, {"SLURM_JOB_ID": "7"}) is None
    assert place_of({}, SLURM | {"SLURM_NTASKS": "1"}) is None


def test_flags_of_a_process_are_no_settings():
    arguments = ["digits", "--process", "1", "--seed", "3", "--coordinator=10.0.0.1:1234", "--processes", "2"]
    assert without_flags(arguments) == (["digits", "--seed", "3"], FLAGS)


@pytest.mark.parametrize(
    ("flags", "environment", "said"),
    [
        ({}, {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, r"outside a step, as under salloc.*\nStart it by srun"),
        ({}, {k: v for k, v in SLURM.items() if k != "SLURM_PROCID"}, "SLURM_PROCID missing"),
        ({"--processes": "2"}, {}, "--coordinator and --process missing"),
        ({}, {"JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_NUM_PROCESSES and JAX_PROCESS_ID missing"),
        (FLAGS | {"--process": "2"}, {}, "--process is 2; expected 0 to 1"),
        (FLAGS | {"--process": "one"}, {}, "--process is 'one'; expected a whole number"),
        (FLAGS | {"--coordinator": "10.0.0.1"}, {}, "expected an address and a port"),
    ],
)
def test_a_place_that_is_given_by_half_says_what_is_missing(flags, environment, said):
    with pytest.raises(UserError, match=said):
        place_of(flags, environment)


def test_a_coordinator_that_does_not_answer_ends_the_process_in_time():
    program = "from deq_jax.training.devices.processes import join, Place; join(Place('127.0.0.1:1', 2, 1), seconds=1)"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "the coordinator at 127.0.0.1:1 has not answered within 1 s" in ended.stderr
