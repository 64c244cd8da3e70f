"""What a run on puzzles is made of, and what can be done with it."""

from deq_jax.tasks.puzzles.config import DataConfig
from deq_jax.tasks.puzzles.problems.sudoku import FORMS
from deq_jax.tasks.puzzles.task import OPENER, open_task
from deq_jax.tasks.room import Room


def harder(data: DataConfig) -> int:
    """A difficulty that is worth a look."""
    if data.puzzle == "sudoku":
        return max(data.difficulty - 2, FORMS[data.side].fewest)
    return 16 * data.difficulty if data.puzzle == "prefix-sums" else 4 * data.difficulty - 3


ROOM = Room(
    OPENER,
    open_task,
    smaller="--batch-size or --model.channels",
    next_steps=lambda config: [f"evaluate {{run}} --difficulty {harder(config.data)} --max-iter 1000"],
)
