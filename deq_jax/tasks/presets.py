"""All that can be trained by name, whatever it is about."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from deq_jax.tasks.images.presets import PRESETS as IMAGES
from deq_jax.tasks.inverse.presets import PRESETS as INVERSE
from deq_jax.tasks.puzzles.presets import PRESETS as PUZZLES
from deq_jax.tasks.text.presets import PRESETS as TEXT

PRESETS: dict[str, Callable[[], Any]] = {**IMAGES, **PUZZLES, **INVERSE, **TEXT}


def train(config: Any, *, is_quiet: bool = False, flags: Mapping[str, str] | None = None) -> int:
    """Trains, or continues, the run in `config.out`; returns and raises as `run.run` does."""
    # Every room says what it is beside its config. Not imported above: help and mistakes are answered at once.
    package = type(config).__module__.rpartition(".")[0]
    status: int = importlib.import_module(f"{package}.room").ROOM.train(config, is_quiet=is_quiet, flags=flags)
    return status
