"""TensorBoard event files: the numbers of metrics.jsonl, for ``tensorboard --logdir RUN``. No TensorFlow is needed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from deq_jax.training.disk.files import writing_to
from deq_jax.training.disk.metrics import Record

_NO_CURVES = ("kind", "step", "epoch", "seconds")
_SECONDS_BETWEEN_FLUSHES = 10.0  # each waits for the disk
_FOLDERS = {"train": "train", "eval": "test", "validation": "validation"}


class Events:
    """The writer of one event file in a run's folder.

    Not the library's own SummaryWriter: that writes in a thread, which waits for ever once the disk is full.
    """

    def __init__(self, run: Path, step: int) -> None:
        self._run, self._flushed = run, time.monotonic()
        with writing_to(run):
            # Two starts in one second would have the same name.
            self._writer = EventsWriter(str(run.absolute() / "events"), f".{step:09d}")
            if step or len(list(run.glob("events.out.tfevents.*"))) > 1:
                # TensorBoard then forgets what former starts have written of the steps that come now.
                self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, record: Record) -> None:
        """The numbers of a line of metrics.jsonl, as the curves `train/loss`, `test/accuracy` and so on."""
        folder = _FOLDERS[record["kind"]]
        values = [
            Summary.Value(tag=f"{folder}/{name}", simple_value=value)
            for name, value in record.items()
            if name not in _NO_CURVES and value is not None
        ]
        with writing_to(self._run):
            self._write(Event(step=record["step"], summary=Summary(value=values)))
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def flush(self) -> None:
        """Brings all that was added to the disk, as is due before a checkpoint from which a run may go on."""
        self._flushed = time.monotonic()
        with writing_to(self._run):
            self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        with writing_to(self._run):
            self._writer.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)


class NoEvents(Events):
    """Of a process that leaves the writing to another."""

    def __init__(self) -> None:
        pass

    def add(self, record: Record) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@contextmanager
def opened(run: Path | None, step: int) -> Iterator[Events]:
    """A new event file in the run's folder, for the steps after this one; none where there is no folder."""
    events = NoEvents() if run is None else Events(run, step)
    try:
        yield events
    finally:
        events.close()
