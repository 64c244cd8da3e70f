"""Problems that are generated, a file a kind: any difficulty, one answer each, and a program that finds it."""

from deq_jax.tasks.puzzles.problems.files import read
from deq_jax.tasks.puzzles.problems.maze import mazes
from deq_jax.tasks.puzzles.problems.prefix_sums import prefix_sums
from deq_jax.tasks.puzzles.problems.problem import Grid, Kind, Problem
from deq_jax.tasks.puzzles.problems.source import Problems
from deq_jax.tasks.puzzles.problems.sudoku import boards

__all__ = ["Grid", "Kind", "Problem", "Problems", "boards", "mazes", "prefix_sums", "read"]
