"""A problem, and what there is to know of its kind."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Int

Grid = Int[Array | np.ndarray, "*batch height width"]


class Problem(NamedTuple):
    """One problem, or a batch of them. A string is a grid of one row."""

    clues: Grid
    """What is given: a symbol in every place."""
    answer: Grid
    """What is right: a class in every place."""


class Kind(NamedTuple):
    """Problems of one kind and of one difficulty."""

    unit: str
    """What they are called, in the plural."""
    difficulty: str
    """Their difficulty in words."""
    characters: str
    """How the symbols that clues are made of are written, one after the other."""
    classes: int
    """Classes that answers are made of: 0 … classes − 1."""
    side: int | None
    """Places a side that a network for them takes alone; None where any number will do."""
    draw: Callable[[np.random.Generator], Problem]
    """A random problem, which has one answer alone."""
    solve: Callable[[Any], Grid]
    """The answer to clues by a program that has learned nothing. Raises UserError where there is none, or several."""
    write: Callable[[Grid, Grid], list[str]]
    """Clues and an answer to them as text, a line a row."""

    @property
    def symbols(self) -> int:
        """How many symbols clues are made of: 0 … symbols − 1."""
        return len(self.characters)
