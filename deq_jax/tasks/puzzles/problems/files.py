"""Problems of one's own, from a text file."""

from pathlib import Path

import numpy as np

from deq_jax.tasks.puzzles.problems.problem import Kind, Problem
from deq_jax.training.errors import UserError


def read(path: Path, kind: Kind) -> Problem:
    """All problems of a file, ``[problems, height, width]``, solved.

    A character is a place, a line a row, and an empty line comes between two problems: ``0`` and ``1`` in strings;
    ``#``, ``.``, ``S`` and ``E`` for wall, free, start and end in mazes; ``.`` and numbers in boards.

    Raises:
        UserError: the file cannot be read, or one of its problems, named by its number, is none of this kind, is of
            another size than the first, or has no answer, or several.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from error
    blocks = [block.split("\n") for block in "\n".join(line.strip() for line in text.splitlines()).split("\n\n")]
    grids = [[line for line in block if line] for block in blocks]
    grids = [grid for grid in grids if grid]
    if not grids:
        raise UserError(f"{path} holds no problem; expected {kind.unit}, an empty line between two of them.")
    problems = [_solved(f"{path}, problem {number}", grid, kind) for number, grid in enumerate(grids, 1)]
    for number, problem in enumerate(problems, 1):
        if problem.clues.shape != problems[0].clues.shape:
            shapes = [" × ".join(map(str, one.clues.shape)) for one in (problem, problems[0])]
            raise UserError(
                f"{path}, problem {number} is {shapes[0]}, the first one {shapes[1]}; put them into two files."
            )
    clues, answers = zip(*problems, strict=True)
    return Problem(np.stack(clues), np.stack(answers))


def _solved(where: str, grid: list[str], kind: Kind) -> Problem:
    strange = sorted(set("".join(grid)) - set(kind.characters))
    if strange:
        raise UserError(f"{where} holds {' '.join(strange)}; {kind.unit} are written with {' '.join(kind.characters)}.")
    if len({len(line) for line in grid}) > 1:
        raise UserError(f"{where} has lines of different lengths.")
    clues = np.array([[kind.characters.index(character) for character in line] for line in grid], np.int8)
    try:
        return Problem(clues, kind.solve(clues))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
