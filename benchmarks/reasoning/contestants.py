"""The networks that are compared: of as many parameters, trained for about as long on the same problems."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from deq_jax.tasks.puzzles.config import Config
from deq_jax.tasks.puzzles.presets import PRESETS


class Puzzle(NamedTuple):
    """What the comparison asks of a puzzle."""

    harder: tuple[int, ...]
    """Difficulties to be measured at, that of training first."""
    middle: int
    """Where evaluations are counted out."""
    evaluations: tuple[int, ...]
    """At most so many there, up to ten times those of training."""
    far: int
    """Evaluations at most elsewhere."""
    problems: int
    """Measured at each difficulty."""


PUZZLES = {
    "prefix-sums": Puzzle((32, 64, 128, 256, 512), 128, (8, 16, 32, 64, 128, 320), 500, 100),
    "maze": Puzzle((9, 13, 17, 25, 33), 17, (8, 16, 28, 56, 112, 280), 500, 64),
    "sudoku": Puzzle((12, 11, 10, 9), 10, (4, 8, 12, 24, 48, 96, 240), 500, 256),
}


def _equilibrium(config: Config) -> Config:
    return config


def _unrolled(config: Config) -> Config:
    depth = config.model.segments * config.model.steps
    return dataclasses.replace(config, model=dataclasses.replace(config.model, kind="unrolled", steps=depth))


def _without_recall(config: Config) -> Config:
    unrolled = _unrolled(config)
    return dataclasses.replace(unrolled, model=dataclasses.replace(unrolled.model, kind="without-recall"))


def _layers(config: Config) -> Config:
    """As many parameters in layers of their own; a step costs a small part, and there are more of them for it."""
    of = config.model
    layers = 6
    width = max(4, round((of.channels * of.inner_channels / layers) ** 0.5))
    model = dataclasses.replace(of, kind="layers", layers=layers, channels=width, inner_channels=width)
    return dataclasses.replace(config, model=model, epochs=6 * config.epochs)


CONTESTANTS: dict[str, Callable[[Config], Config]] = {
    "equilibrium": _equilibrium,
    "tied, unrolled": _unrolled,
    "tied, without recall": _without_recall,
    "layers of their own": _layers,
}


def configured(puzzle: str, contestant: str, seed: int, out: Path, epochs: int | None) -> Config:
    """The run of a contestant."""
    preset = dataclasses.replace(PRESETS[puzzle](), seed=seed)
    if epochs is not None:
        preset = dataclasses.replace(preset, epochs=epochs)
    folder = f"{puzzle}-{contestant.replace(', ', '-').replace(' ', '-')}-{seed}"
    return dataclasses.replace(CONTESTANTS[contestant](preset), out=out / folder)
