"""On what the processes of a run agree: what they train, what the first has done, and when to save and to stop."""

import json
import signal
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from deq_jax.training.devices.devices import Devices
from deq_jax.training.errors import UserError

Wish = int
GO_ON, SAVE, STOP = 0, 1, 2


def is_first() -> bool:
    """Whether this process writes and says what a run does: one of them does."""
    return jax.process_index() == 0


def require_alike(descriptions: Mapping[str, Any]) -> None:
    """Raises UserError, on every process, where one has been given something else than the first.

    Args:
        descriptions: what must be the same, as JSON values, by name.
    """
    if jax.process_count() == 1:
        return
    everyones = [json.loads(text) for text in _gathered(json.dumps(descriptions, default=str, sort_keys=True))]
    for process, theirs in enumerate(everyones):
        different = [name for name in everyones[0].keys() | theirs.keys() if everyones[0].get(name) != theirs.get(name)]
        if different:
            said = ", ".join(
                f"{name} {theirs.get(name)} instead of {everyones[0].get(name)}" for name in sorted(different)
            )
            raise UserError(
                f"process {process} differs from process 0: {said}.\nGive the same settings, data and versions to all."
            )


def by_first[T](action: Callable[[], T]) -> T | None:
    """What the first process gets from ``action``, which the others wait for; where it fails there, all fail."""
    if jax.process_count() == 1:
        return action()
    result, complaint = None, ""
    if is_first():
        try:
            result = action()
        except UserError as error:
            complaint = str(error)
    first = _gathered(complaint)[0]
    if first:
        raise UserError(first)
    return result


class Accord:
    """Stopping and saving at the same step everywhere: what one process wishes all learn before their next step.

    A wish travels beside the steps, so that none of them waits for it.
    """

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._pending: jax.Array | None = None
        self._largest: Any = None

    def __call__(self, *, stops: bool, saves: bool) -> Wish:
        """What is to be done after this step; with one process what it wishes."""
        own = STOP if stops else SAVE if saves else GO_ON
        if jax.process_count() == 1:
            return own
        share = self._devices.share
        wishes = self._devices.spread(np.full(share.stop - share.start, own, np.int32))
        if self._largest is None:
            self._largest = self._devices.compiled(lambda wishes: wishes.max(), wishes)
        before, self._pending = self._pending, self._largest(wishes)
        return GO_ON if before is None else int(before)


def agreed_signal(own: int | None) -> int:
    """The signal that stops the run: this process's own, or that which another got."""
    return signal.SIGTERM if own is None else own


def _gathered(text: str) -> list[str]:
    """Every process's text."""
    encoded = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(encoded)))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(encoded)] = encoded
    rows = multihost_utils.process_allgather(padded) if len(padded) else np.zeros((len(sizes), 0), np.uint8)
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes.reshape(-1), strict=True)]
