"""What train.py does with a configuration of puzzles."""

import functools
import shlex
from collections.abc import Mapping

from deq_jax.tasks.puzzles.config import Config, DataConfig
from deq_jax.tasks.puzzles.problems.sudoku import FORMS
from deq_jax.tasks.puzzles.task import OPENER, open_task
from deq_jax.training.process.compilation import told_of_memory
from deq_jax.training.run import run


def train(config: Config, *, is_quiet: bool = False, flags: Mapping[str, str] | None = None) -> int:
    """Trains, or continues, the run in `config.out`; returns and raises as `run.run` does."""
    out = shlex.quote(str(config.out))
    next_steps = [f"python -m deq_jax.evaluate {out} --difficulty {_harder(config.data)} --max-iter 1000"]
    with told_of_memory("--batch-size or --model.channels with another --out"):
        return run(
            functools.partial(open_task, config),
            config,
            config,
            OPENER,
            is_quiet=is_quiet,
            next_steps=next_steps,
            flags=flags,
        )


def _harder(data: DataConfig) -> int:
    """A difficulty that is worth a look."""
    if data.puzzle == "sudoku":
        return max(data.difficulty - 2, FORMS[data.side].fewest)
    return 16 * data.difficulty if data.puzzle == "prefix-sums" else 4 * data.difficulty - 3
