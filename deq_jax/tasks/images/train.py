"""What train.py does with a configuration: it opens the task, and hands it to the run."""

import functools
import shlex
from collections.abc import Mapping

from deq_jax.tasks.images.config import Config, located, settings_of
from deq_jax.tasks.images.task import OPENER, open_task
from deq_jax.training.process.compilation import told_of_memory
from deq_jax.training.run import run


def train(config: Config, *, is_quiet: bool = False, flags: Mapping[str, str] | None = None) -> int:
    """Trains, or continues, the run in `config.out`; returns and raises as `run.run` does."""
    out = shlex.quote(str(config.out))
    next_steps = [
        f"python -m deq_jax.predict {out} IMAGE...",
        f"python -m deq_jax.evaluate {out} --checkpoint best",
        f"python -m deq_jax.export {out} FILE",
    ]
    with told_of_memory("--batch-size, --model.channels or --solver.m with another --out"):
        return run(
            functools.partial(open_task, config),
            settings_of(config),
            located(config),
            OPENER,
            is_quiet=is_quiet,
            next_steps=next_steps,
            flags=flags,
        )
