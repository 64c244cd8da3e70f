"""What train.py does with a configuration of text."""

import functools
import shlex
from collections.abc import Mapping

from deq_jax.tasks.text.config import Config
from deq_jax.tasks.text.task import OPENER, open_task
from deq_jax.training.process.compilation import told_of_memory
from deq_jax.training.run import run


def train(config: Config, *, is_quiet: bool = False, flags: Mapping[str, str] | None = None) -> int:
    """Trains, or continues, the run in `config.out`; returns and raises as `run.run` does."""
    out = shlex.quote(str(config.out))
    next_steps = [f'python -m deq_jax.generate {out} --prompt "def "', f"python -m deq_jax.evaluate {out}"]
    with told_of_memory("--batch-size, --data.length or --model.features with another --out"):
        return run(
            functools.partial(open_task, config),
            config,
            config,
            OPENER,
            is_quiet=is_quiet,
            next_steps=next_steps,
            flags=flags,
        )
