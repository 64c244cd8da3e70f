"""SIGINT, SIGTERM and SIGHUP as requests to stop at the next good moment."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
    # Nobody else is to hear of the first one: not `interrupts_end_at_once`, which would take it for its own.
    wakened = signal.set_wakeup_fd(-1)

    def restore() -> None:
        signal.set_wakeup_fd(wakened)
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


@contextmanager
def interrupts_end_at_once() -> Iterator[None]:
    """Ctrl-C ends the process at once, in one line and with status 130, whatever it is doing.

    Python's own exception waits until a compiler returns, and imports have been seen to swallow it. So a thread waits
    for the signal, which is the process's end for as long as nobody else, such as `stop_requests`, takes it. For a
    program's main thread; a signal that is ignored, as under nohup, remains so.
    """
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        while byte := reader.recv(1):
            if byte[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is _end:
                _end(byte[0], None)

    before = signal.signal(signal.SIGINT, _end)
    wakened = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakened)
        signal.signal(signal.SIGINT, before)
        writer.close()


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(128 + number)
