"""The run's running account: lines of metrics.jsonl, TensorBoard's curves, and what is said of the progress."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from deq_jax.training.disk import metrics
from deq_jax.training.disk.tensorboard import Events
from deq_jax.training.process.console import Progress
from deq_jax.training.steps.step import TrainMetrics


class NotFiniteError(FloatingPointError):
    """A step has measured something that is not finite, of the state that the step before it left."""

    def __init__(self, step: int, in_a_row: int = 1) -> None:
        many = f", nor at the {in_a_row - 1:,} before it" if in_a_row > 1 else ""
        super().__init__(f"the loss or its gradient is not finite at step {step:,}{many}")
        self.step = step


SKIPPED_AT_MOST = 50
"""Steps in a row that are not finite, after which nothing is to be hoped for."""


class Logbook:
    """Writes a step's metrics once the next step has been handed to the device, which so never waits for a file.

    Args:
        path: the metrics.jsonl to append to; None where another process does.
        events: TensorBoard's, which get the same numbers.
        progress: what is told of every step.
        clock: seconds since the run began, over resumes.
        epoch_of: the epoch of a step.
        units: names and units of the task's own metrics.
        watch: looks at every line of a training step.
        skips: steps that are not finite have changed nothing, and are counted.
    """

    def __init__(
        self,
        path: Path | None,
        events: Events,
        progress: Progress,
        clock: Callable[[], float],
        epoch_of: Callable[[int], int],
        units: Mapping[str, str],
        watch: Callable[[metrics.Record], None],
        *,
        skips: bool = False,
    ) -> None:
        self.path, self.events, self.progress = path, events, progress
        self.clock, self.epoch_of, self.units = clock, epoch_of, units
        self.watch, self.skips, self._skipped = watch, skips, 0
        self._pending: tuple[int, TrainMetrics, float] | None = None
        self._settled = clock()

    def dispatched(self, step: int, measured: TrainMetrics, started: float) -> None:
        """Settles the step before, and takes note of one that the device has been given at the time `started`."""
        self.settle()
        self._pending = (step, measured, started)

    def settle(self) -> None:
        """Waits for the step that was last handed to the device, and writes its line.

        Raises:
            NotFiniteError: its loss or a gradient is not finite.
        """
        if self._pending is None:
            return
        (step, measured, started), self._pending = self._pending, None
        means = metrics.train_means(measured)
        now = self.clock()
        step_seconds = now - max(started, self._settled)
        self._settled = now
        epoch = self.epoch_of(step)
        record = metrics.line(
            "train", step, epoch, means, self.units, seconds=round(now, 3), step_seconds=round(step_seconds, 4)
        )
        is_skipped = self.skips and not measured.is_finite
        self._skipped = self._skipped + 1 if is_skipped else 0
        self._write(record | ({"skipped": 1} if is_skipped else {}))
        solves = [
            f"{name} {means[f'{name}_iterations']:.1f} to {means[f'{name}_residual']:.0e}"
            for name in ("forward", "adjoint")
            if math.isfinite(means[f"{name}_residual"])
        ]
        own = [f"{name} {metrics.said(means[name], unit, 1)}" for name, unit in self.units.items()]
        self.progress.advance(", ".join([f"loss {means['loss']:.3f}", *own, *solves]))
        if not measured.is_finite and (not is_skipped or self._skipped >= SKIPPED_AT_MOST):
            raise NotFiniteError(step, max(self._skipped, 1))
        self.watch(record)

    def evaluated(self, split: str, step: int, means: Mapping[str, float]) -> None:
        """Writes the line of an evaluation on a split, and says it."""
        epoch = self.epoch_of(step)
        self._write(
            metrics.line(metrics.KIND_OF[split], step, epoch, means, self.units, seconds=round(self.clock(), 3))
        )
        said = f"epoch {epoch}, step {step:,}: {split} loss {means['loss']:.3f}"
        said += "".join(f", {name} {metrics.said(means[name], unit)}" for name, unit in self.units.items())
        if math.isfinite(means["forward_residual"]):  # ordinary layers have none
            said += f", {means['forward_iterations']:.1f} evaluations to a residual of {means['forward_residual']:.1e}"
        self.progress.say(said)

    def _write(self, record: metrics.Record) -> None:
        if self.path is not None:
            metrics.append(self.path, record)
        self.events.add(record)
