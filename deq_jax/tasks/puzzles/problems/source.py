"""Problems as a run reads them: numbered without an end, each made when it is asked for."""

import zlib
from typing import Literal

import numpy as np
from jaxtyping import Int

from deq_jax.tasks.puzzles.problems.problem import Kind, Problem
from deq_jax.training.errors import UserError

Split = Literal["train", "test"]

_TEST_PART = 16
"""One in so many of all problems there are is kept for testing, by its clues alone."""
_TRIES = 2_000


class Problems:
    """A source of a task's data: problem ``i`` is a matter of the seed and of ``i`` alone.

    What is for testing is told from the rest by its clues, so that none is ever trained on, whatever the seed.

    Args:
        kind: what they are.
        split: "train" or "test".
        size: how many an epoch reads.
        seed: settles which.

    Raises:
        UserError: there are too few of them for two splits.
    """

    is_endless = True

    def __init__(self, kind: Kind, split: Split, size: int, seed: int):
        self._kind = kind
        self._split = split
        self._size = size
        self._seed = seed
        self._problem(0)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, rows: Int[np.ndarray, " rows"] | slice) -> Problem:
        """The problems of these numbers, ``[rows, height, width]``; a slice is one of the first epoch's."""
        numbers = np.arange(self._size)[rows] if isinstance(rows, slice) else np.asarray(rows)
        clues, answers = zip(*(self._problem(int(number)) for number in numbers), strict=True)
        return Problem(np.stack(clues), np.stack(answers))

    def _problem(self, number: int) -> Problem:
        rng = np.random.default_rng((self._seed, self._split == "test", number))
        for _ in range(_TRIES):
            problem = self._kind.draw(rng)
            if _is_for_testing(problem) == (self._split == "test"):
                return problem
        raise UserError(
            f"{self._kind.unit} of {self._kind.difficulty} are too few to train on some and to test on others; "
            f"choose a greater difficulty."
        )


def _is_for_testing(problem: Problem) -> bool:
    return zlib.crc32(np.ascontiguousarray(problem.clues).tobytes()) % _TEST_PART == 0
