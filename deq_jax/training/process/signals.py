"""SIGINT, SIGTERM and SIGHUP as requests to stop at the next good moment."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_HANG_UP = getattr(signal, "SIGHUP", None)  # the terminal is closed, the connection lost; not on Windows


@contextmanager
def stop_requests() -> Iterator[Callable[[], int | None]]:
    """Gives a function that returns the first of these signals that came, or None.

    The second one acts as it would without this, so that a run that hangs can still be ended. Outside the main thread,
    where Python takes no handlers, nothing ever comes.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in _signals()}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def receive(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        restore()

    for number in before:
        signal.signal(number, receive)
    try:
        yield lambda: received[0] if received else None
    finally:
        restore()


def _signals() -> tuple[signal.Signals, ...]:
    # Under nohup a hang-up is ignored, and is to remain so.
    hang_up = () if _HANG_UP is None or signal.getsignal(_HANG_UP) is signal.SIG_IGN else (_HANG_UP,)
    return (signal.SIGINT, signal.SIGTERM, *hang_up)
