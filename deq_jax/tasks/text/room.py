"""What a run on text is made of, and what can be done with it."""

import dataclasses
from pathlib import Path

from deq_jax.tasks.room import Room
from deq_jax.tasks.text.config import Config
from deq_jax.tasks.text.task import OPENER, open_task


def located(config: Config) -> Config:
    """The configuration, whose source is named from the root."""
    if config.data.source is None:
        return config
    source = str(Path(config.data.source).absolute())
    return dataclasses.replace(config, data=dataclasses.replace(config.data, source=source))


ROOM = Room(
    OPENER,
    open_task,
    smaller="--batch-size, --data.length or --model.features",
    next_steps=lambda config: ['generate {run} --prompt "def "', "evaluate {run}"],
    located=located,
)
