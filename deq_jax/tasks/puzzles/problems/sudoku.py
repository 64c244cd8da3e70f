"""Sudoku boards of 4×4, 6×6 and 9×9 places with a stated number of givens and one solution."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from deq_jax.tasks.puzzles.problems.problem import Grid, Kind, Problem
from deq_jax.training.errors import UserError


class Form(NamedTuple):
    """What there is to know of the boards of a side."""

    box: tuple[int, int]
    """Rows and columns of a box."""
    needed: int
    """Fewer givens than these never have one solution alone."""
    fewest: int
    """Fewer than these are not found here: places are emptied at random."""


FORMS = {4: Form((2, 2), 4, 4), 6: Form((2, 3), 8, 9), 9: Form((3, 3), 17, 24)}
BASES = 512
"""Boards that are made; others are made of them, by what a Sudoku board may undergo and stay one."""


def boards(side: int, givens: int, bases_seed: int = 0) -> Kind:
    """Boards of a side with so many givens: clues are 0 where a place is empty, or a number; answers numbers less 1.

    The numbers, the rows of a box, the boxes of a column and so on are exchanged at random, which makes from every one
    of ``BASES`` boards more than can be counted.

    Args:
        side: 4, 6 or 9.
        givens: places that are filled in.
        bases_seed: settles the boards that others are made of.

    Raises:
        UserError: there are no such boards, or they are not found here.

    Source: McGuire et al., "There is no 16-clue Sudoku", 2014, for the number of givens that 9×9 boards need.
    """
    if side not in FORMS:
        raise UserError(f"a Sudoku of {side}×{side} cannot be generated; there are {', '.join(map(str, FORMS))}.")
    form, places = FORMS[side], side * side
    if givens < form.needed or givens >= places:
        raise UserError(
            f"a {side}×{side} Sudoku of {givens} givens cannot be generated: with fewer than {form.needed} there are "
            f"always several solutions, and of {places} places one at least is to be found."
        )
    if givens < form.fewest:
        raise UserError(
            f"a {side}×{side} Sudoku of {givens} givens cannot be generated: places are emptied at random, and boards "
            f"with fewer than {form.fewest} are too rare to be met so."
        )

    def draw(rng: np.random.Generator) -> Problem:
        base = _base(side, givens, bases_seed, int(rng.integers(BASES)))
        return _exchanged(rng, base, form.box)

    return Kind(f"{side}×{side} boards", f"{givens} givens", ".123456789"[: side + 1], side, side, draw, solve, write)


def solve(clues: Grid) -> Grid:
    """The one solution, its numbers less 1.

    Raises:
        UserError: the clues are no board, or have no solution, or several.
    """
    clues = np.asarray(clues)
    side = len(clues)
    if clues.shape != (side, side) or side not in FORMS or not np.isin(clues, range(side + 1)).all():
        raise UserError(
            f"clues of shape {list(clues.shape)} are no Sudoku; expected [side, side] of a side of "
            f"{', '.join(map(str, FORMS))}, with numbers of 1 to the side and 0 where a place is empty."
        )
    found = _first_two(clues)
    if len(found) != 1:
        raise UserError(f"the board has {'several solutions' if found else 'no solution'}; expected one.")
    return (found[0] - 1).astype(np.int8)


def write(clues: Grid, answer: Grid) -> list[str]:
    """The answer's numbers, from 1."""
    del clues
    return ["".join(map(str, row)) for row in (np.asarray(answer) + 1).tolist()]


def _first_two(clues: Grid) -> list[Grid]:
    solutions = _solutions(clues, range(len(clues)))
    return [solution for solution, _ in zip(solutions, range(2), strict=False)]


def _solutions(clues: Grid, order: range | list[int]) -> Iterator[Grid]:
    """All solutions, by trying where the fewest numbers are possible; numbers in this order, less 1."""
    side = len(clues)
    units = _units(side)
    used = [0] * (3 * side)
    board = clues.ravel().astype(int).tolist()
    for place, number in enumerate(board):
        if number:
            if any(used[unit] >> (number - 1) & 1 for unit in units[place]):
                return
            for unit in units[place]:
                used[unit] |= 1 << (number - 1)

    def search(empty: list[int]) -> Iterator[Grid]:
        if not empty:
            yield np.array(board, np.int8).reshape(side, side)
            return
        taken = {place: used[a] | used[b] | used[c] for place in empty for a, b, c in (units[place],)}
        place = max(empty, key=lambda place: taken[place].bit_count())
        rest = [other for other in empty if other != place]
        for number in order:
            if not taken[place] >> number & 1:
                for unit in units[place]:
                    used[unit] ^= 1 << number
                board[place] = number + 1
                yield from search(rest)
                for unit in units[place]:
                    used[unit] ^= 1 << number

    yield from search([place for place, number in enumerate(board) if not number])


@functools.cache
def _units(side: int) -> list[tuple[int, int, int]]:
    """Of every place its row, its column and its box, numbered on."""
    rows, columns = FORMS[side].box
    across = side // columns
    return [(r, side + c, 2 * side + r // rows * across + c // columns) for r in range(side) for c in range(side)]


@functools.lru_cache(maxsize=4 * BASES)
def _base(side: int, givens: int, seed: int, number: int) -> Problem:
    """A solved board emptied place by place in random order, wherever it keeps one solution."""
    rng = np.random.default_rng((seed, side, givens, number))
    while True:
        first = np.zeros((side, side), np.int8)
        first[0] = rng.permutation(side) + 1
        solution = next(_solutions(first, rng.permutation(side).tolist()))
        clues, left = solution.copy(), side * side
        for place in rng.permutation(side * side):
            if left == givens:
                return Problem(clues, solution - 1)
            row, column = divmod(int(place), side)
            clues[row, column] = 0
            if len(_first_two(clues)) == 1:
                left -= 1
            else:
                clues[row, column] = solution[row, column]
        if left == givens:
            return Problem(clues, solution - 1)


def _exchanged(rng: np.random.Generator, board: Problem, box: tuple[int, int]) -> Problem:
    """The board with its numbers, bands, stacks, rows and columns exchanged, and perhaps turned about its diagonal."""
    side = len(board.clues)
    numbers = rng.permutation(side).astype(np.int8)
    rows, columns = (_shuffled(rng, side, size) for size in box)
    turns = box[0] == box[1] and rng.integers(2)

    def moved(grid: Grid) -> Grid:
        grid = grid[rows][:, columns]
        return np.ascontiguousarray(grid.T if turns else grid)

    renamed = np.concatenate([np.zeros(1, np.int8), numbers + 1])
    return Problem(moved(renamed[board.clues]), moved(numbers[board.answer]))


def _shuffled(rng: np.random.Generator, side: int, size: int) -> np.ndarray:
    """Lines in groups of ``size``: the groups shuffled, and the lines within each."""
    groups = [size * group + rng.permutation(size) for group in rng.permutation(side // size)]
    return np.concatenate(groups)
