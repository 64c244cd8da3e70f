"""Windows of a text: what a step reads."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Int

from deq_jax.tasks.text.config import DataConfig
from deq_jax.tasks.text.vocabulary import Numbers
from deq_jax.training.errors import UserError

Segments = Int[Array | np.ndarray, "batch segments length"]


class Window(NamedTuple):
    """Stretches of text, in segments, and what follows each of their positions."""

    tokens: Segments
    following: Segments


class Windows:
    """A source of a task's data: window ``i`` begins anywhere in the text, as the seed and ``i`` settle.

    Args:
        text: the numbers of the whole text.
        data: how long windows are, and how many an epoch reads.
        seed: settles where they begin.
    """

    is_endless = True

    def __init__(self, text: Numbers, data: DataConfig, seed: int):
        self._text, self._data, self._seed = text, data, seed

    def __len__(self) -> int:
        return self._data.epoch

    def __getitem__(self, rows: Int[np.ndarray, " rows"] | slice) -> Window:
        """The windows of these numbers; a slice is one of the first epoch's."""
        numbers = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        last = len(self._text) - size(self._data)
        begin = [np.random.default_rng((self._seed, int(number))).integers(last + 1) for number in numbers]
        return at(self._text, np.array(begin, int), self._data)


def spread(text: Numbers, data: DataConfig) -> Window:
    """Windows evenly spread over a text, none of which overlap: the first one begins where it does."""
    most = len(text) // size(data)
    count = min(data.test, most)
    return at(text, np.arange(count) * most // count * size(data), data)


def at(text: Numbers, begin: Int[np.ndarray, " rows"], data: DataConfig) -> Window:
    """The windows that begin there."""
    rows = text[begin[:, None] + np.arange(size(data))[None]].astype(np.int32)
    shape = (len(begin), data.segments, data.length)
    return Window(rows[:, :-1].reshape(shape), rows[:, 1:].reshape(shape))


def size(data: DataConfig) -> int:
    """Positions of a window, and what follows the last one."""
    return data.segments * data.length + 1


def require_long(text: Numbers, data: DataConfig, split: str) -> Numbers:
    """The text; raises UserError where it is shorter than a window."""
    if len(text) < size(data):
        raise UserError(
            f"the text to {split} on has {len(text):,} {data.unit}, but a window takes {size(data):,}; give more text, "
            f"or a smaller --data.length or --data.segments."
        )
    return text
