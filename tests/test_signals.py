import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from deq_jax.training.process.signals import stop_requests

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_becomes_a_request_and_the_second_acts_as_ever(number):
    came = []
    outer = signal.signal(number, lambda *_: came.append("outer"))
    try:
        with stop_requests() as stop:
            assert stop() is None
            os.kill(os.getpid(), number)
            assert stop() == number
            assert came == []
            os.kill(os.getpid(), number)
            assert came == ["outer"]
        os.kill(os.getpid(), number)
        assert came == ["outer"] * 2
    finally:
        signal.signal(number, outer)


def test_a_hang_up_that_is_ignored_remains_so():
    """As it is under nohup."""
    outer = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop() is None
    finally:
        signal.signal(signal.SIGHUP, outer)


def test_outside_the_main_thread_nothing_comes():
    seen = []

    def work():
        with stop_requests() as stop:
            seen.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


BUSY = """
import time
from deq_jax.training.process.signals import interrupts_end_at_once, stop_requests

with interrupts_end_at_once():
    if TAKEN:
        with stop_requests() as stop:
            print("ready", flush=True)
            while stop() is None:
                time.sleep(0.01)
            print("taken", flush=True)
        raise SystemExit(5)
    print("ready", flush=True)
    try:
        time.sleep(60)
    except BaseException:
        time.sleep(60)  # as where it is swallowed
"""


def started(command):
    """A process that heeds Ctrl-C, which a shell tells what it starts in the background to ignore."""
    heed = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    return subprocess.Popen([sys.executable, "-c", heed, *command], cwd=ROOT, text=True, stdout=PIPE, stderr=PIPE)


def test_ctrl_c_ends_a_program_at_once_in_one_line_and_cannot_be_swallowed():
    code = BUSY.replace("TAKEN", "False")
    with started([sys.executable, "-c", code]) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
        assert process.stderr.read() == "interrupted\n"


def test_ctrl_c_is_left_to_a_run_that_takes_it():
    code = BUSY.replace("TAKEN", "True")
    with started([sys.executable, "-c", code]) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 5
        assert process.stderr.read() == ""


def test_ctrl_c_before_the_first_step_ends_train_py_in_one_line(tmp_path):
    command = [sys.executable, "train.py", "digits", "--out", str(tmp_path / "run")]
    with started(command) as process:
        assert process.stdout.readline().startswith("digits: ")  # it compiles now
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert time.monotonic() - began < 2
        assert process.stderr.read() == "interrupted\n"
    assert not (tmp_path / "run" / "config.json").exists()
