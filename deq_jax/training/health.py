"""Whether a run goes well, as its numbers tell: a model may explode and remain finite."""

from collections import deque
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from deq_jax.training.disk.metrics import Record
from deq_jax.training.settings.settings import Settings

_STEPS = 5
"""The last ones, by which a run is judged: one batch says little."""
_TIMES_LOSS, _TIMES_RESIDUAL, _LARGE_RESIDUAL, _MOST = 4.0, 10.0, 0.1, 0.5


class Watch:
    """Looks at every training step's line, and says once where the model has exploded.

    Args:
        records: lines of the steps that are taken already.
        say: what is told of it.
        settings: the run's, for the advice.
    """

    def __init__(self, records: Iterable[Record], say: Callable[[str], None], settings: Settings) -> None:
        self._first: Record | None = None
        self._first_solved: Record | None = None
        self._last: deque[Record] = deque(maxlen=_STEPS)
        self._say, self._settings, self._has_said = say, settings, False
        for record in records:
            self._take(record)

    def add(self, record: Record) -> None:
        """One step's line more."""
        self._take(record)
        ailment = None if self._has_said else self.ailment()
        if ailment is not None:
            self._has_said = True
            self._say(f"warning: at step {record['step']:,} {ailment}.\n{advice(self._settings)}")

    def ailment(self) -> str | None:
        """What is wrong with the last steps, beside the first; None where nothing is, or too few are known."""
        first = self._first
        if first is None or len(self._last) < _STEPS:
            return None
        loss, residual = _median(self._last, "loss"), _median(self._last, "forward_residual")
        converged = _median(self._last, "forward_converged")
        began = None if self._first_solved is None else self._first_solved["forward_residual"]
        short = None if converged is None else 1 - converged
        is_above = loss is not None and loss > first["loss"] + (_TIMES_LOSS - 1) * abs(first["loss"])
        is_rising = (
            residual is not None
            and short is not None
            and short > _MOST
            and residual > max(_LARGE_RESIDUAL, _TIMES_RESIDUAL * (began or 0.0))
        )
        if not (is_above or is_rising):
            return None
        said = [f"the loss is {loss:.3g}, {first['loss']:.3g} at the start"] if loss is not None else []
        if short is not None and residual is not None:
            said.append(
                f"{short:.0%} of the solves fall short of their tolerance, at a residual of {residual:.1e}"
                + (f", {began:.1e} at the start" if began is not None else "")
            )
        return "the model has exploded: " + "; ".join(said)

    def _take(self, record: Record) -> None:
        if record["kind"] != "train" or record.get("loss") is None:
            return
        self._first = self._first or record
        if record.get("forward_residual") is not None:
            self._first_solved = self._first_solved or record
        self._last.append(record)


def advice(settings: Settings) -> str:
    """The settings that can be the cause of a divergence, as a run has them."""
    causes = ["a lower optimizer.learning_rate"]
    causes += ["an optimizer.clip"] if settings.optimizer.clip is None else []
    causes += (
        ["a lower penalty.weight"]
        if settings.penalty.weight
        else ["a penalty.weight, which keeps the cell contractive"]
    )
    return f"Try {', '.join(causes)}, or a lower solver.tol, in another folder."


def _median(records: Iterable[Record], name: str) -> float | None:
    values: list[Any] = [record[name] for record in records if record.get(name) is not None]
    return median(values) if values else None
