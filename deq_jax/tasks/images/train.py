"""What train.py does with a configuration: it opens the task, and hands it to the run."""

import functools

from deq_jax.tasks.images import task
from deq_jax.tasks.images.config import Config, located, settings_of
from deq_jax.training.process.compilation import told_of_memory
from deq_jax.training.run import run


def train(config: Config) -> int:
    """Trains, or continues, the run in `config.out`; returns and raises as `run.run` does."""
    with told_of_memory("--batch-size, --model.channels or --solver.m with another --out"):
        open_task = functools.partial(task.open_task, config)
        return run(open_task, settings_of(config), located(config), opener=task.__name__)
