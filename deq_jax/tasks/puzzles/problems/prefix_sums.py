"""Prefix sums of bits: in every place whether the ones up to it, itself included, are odd in number."""

import numpy as np

from deq_jax.tasks.puzzles.problems.problem import Grid, Kind, Problem
from deq_jax.training.errors import UserError

LONGEST = 2**16


def prefix_sums(bits: int) -> Kind:
    """Strings of so many random bits, ``[1, bits]``.

    Raises:
        UserError: there are no such strings.

    Source: Schwarzschild et al., "Can you learn an algorithm?", 2021.
    """
    if not 2 <= bits <= LONGEST:
        raise UserError(f"a string of {bits} bits cannot be generated: it has from 2 to {LONGEST:,} of them.")

    def draw(rng: np.random.Generator) -> Problem:
        clues = rng.integers(0, 2, (1, bits), np.int8)
        return Problem(clues, solve(clues))

    return Kind("strings", f"{bits} bits", characters="01", classes=2, side=None, draw=draw, solve=solve, write=write)


def solve(clues: Grid) -> Grid:
    """The running sums modulo 2.

    Raises:
        UserError: the clues are no bits.
    """
    clues = np.asarray(clues)
    if clues.ndim != 2 or clues.shape[0] != 1 or not np.isin(clues, (0, 1)).all():
        raise UserError(f"clues of shape {list(clues.shape)} are no string of bits; expected zeros and ones [1, bits].")
    return (np.cumsum(clues, axis=-1) % 2).astype(np.int8)


def write(clues: Grid, answer: Grid) -> list[str]:
    """The answer's bits."""
    del clues
    return ["".join(map(str, row)) for row in np.asarray(answer).tolist()]
