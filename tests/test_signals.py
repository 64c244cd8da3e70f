import os
import signal
import threading

import pytest

from deq_jax.training.process.signals import stop_requests


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
