"""What a room of tasks hands to the run."""

import functools
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from deq_jax.training.process.compilation import told_of_memory
from deq_jax.training.run import run
from deq_jax.training.task import Task


def _itself(config: Any) -> Any:
    return config


class Room(NamedTuple):
    """How a configuration becomes a run."""

    opener: str
    """The module that opens the task again, as config.json names it."""
    open_task: Callable[[Any], Task]
    """Of a configuration."""
    smaller: str
    """The settings that take less memory when they are smaller."""
    next_steps: Callable[[Any], Sequence[str]]
    """Programs and arguments, with {run} in the folder's place, that are of use after the configuration's run."""
    settings_of: Callable[[Any], Any] = _itself
    """What the run takes of a configuration."""
    located: Callable[[Any], Any] = _itself
    """The configuration as it is kept, so that it means the same in another working directory."""

    def train(self, config: Any, *, is_quiet: bool = False, flags: Mapping[str, str] | None = None) -> int:
        """Trains, or continues, the run in `config.out`; returns and raises as `run.run` does."""
        out = shlex.quote(str(config.out))
        with told_of_memory(f"{self.smaller} with another --out"):
            return run(
                functools.partial(self.open_task, config),
                self.settings_of(config),
                self.located(config),
                self.opener,
                is_quiet=is_quiet,
                next_steps=[f"python -m deq_jax.{words.format(run=out)}" for words in self.next_steps(config)],
                flags=flags,
            )
