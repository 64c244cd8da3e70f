"""Puzzles that are generated: prefix sums, mazes, Sudoku. They need as many evaluations as they are hard."""
