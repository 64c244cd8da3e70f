"""What train.py does with a configuration of blurred photographs."""

import functools
import shlex
from collections.abc import Mapping

from deq_jax.tasks.inverse.config import Config
from deq_jax.tasks.inverse.task import OPENER, open_task
from deq_jax.training.process.compilation import told_of_memory
from deq_jax.training.run import run


def train(config: Config, *, is_quiet: bool = False, flags: Mapping[str, str] | None = None) -> int:
    """Trains, or continues, the run in `config.out`; returns and raises as `run.run` does."""
    next_steps = [f"python -m deq_jax.evaluate {shlex.quote(str(config.out))} --tol 1e-5 --max-iter 400"]
    with told_of_memory("--batch-size, --data.side or --model.channels with another --out"):
        return run(
            functools.partial(open_task, config),
            config,
            config,
            OPENER,
            is_quiet=is_quiet,
            next_steps=next_steps,
            flags=flags,
        )
