"""The networks that are compared: of as many parameters, for as long a training, on the same problems."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from deq_jax.tasks.inverse.presets import PRESETS as INVERSE
from deq_jax.tasks.puzzles.config import Config
from deq_jax.tasks.puzzles.presets import PRESETS as PUZZLES
from deq_jax.tasks.puzzles.task import kind_of, puzzle_task
from deq_jax.training.steps.solving import build_adjoint, build_solver

PRESETS: dict[str, Callable[[], Any]] = {**PUZZLES, "deblur": INVERSE["deblur"]}
EQUILIBRIUM, UNROLLED, WITHOUT_RECALL, LAYERS = (
    "equilibrium",
    "tied, unrolled",
    "tied, without recall",
    "layers of their own",
)
DEPTH = 6
"""Layers of their own."""


class Questions(NamedTuple):
    """What the comparison asks of a task."""

    difficulties: tuple[int, ...]
    """To be measured at, that of training first; of inverse problems, which have one, none."""
    evaluations: tuple[int, ...]
    """At most so many, fewer and up to ten times as many as in training, and further."""
    problems: int
    """Measured at each difficulty."""


QUESTIONS = {
    "prefix-sums": Questions((32, 64, 128, 256, 512), (8, 16, 32, 64, 128, 320, 640), 100),
    "maze": Questions((9, 13, 17, 25, 33), (7, 14, 28, 56, 112, 280, 560), 100),
    "sudoku": Questions((12, 11, 10, 9), (4, 8, 16, 32, 64, 160, 320), 256),
    "deblur": Questions((), (5, 10, 20, 40, 100, 200, 400), 128),
}


def contestants(task: str) -> tuple[str, ...]:
    """Who takes part. An unrolled network that undoes a blur is nothing without what was measured."""
    return (EQUILIBRIUM, UNROLLED) if task == "deblur" else (EQUILIBRIUM, UNROLLED, WITHOUT_RECALL, LAYERS)


def trained_with(task: str) -> int:
    """Evaluations that a training step makes of the equilibrium's cell, at most."""
    config = PRESETS[task]()
    return config.solver.max_iter if task == "deblur" else config.model.segments * config.model.steps


def configured(task: str, contestant: str, seed: int, out: Path, *, steps: int | None = None) -> Any:
    """The run of a contestant, of so many steps; None: of as many as the preset has."""
    config = PRESETS[task]() if (task, contestant) != ("deblur", UNROLLED) else INVERSE["deblur-unrolled"]()
    if task != "deblur":
        config = _PUZZLED[contestant](config)
    config = dataclasses.replace(config, seed=seed, out=out / folder_of(task, contestant, seed))
    if steps is None:
        return config
    # As many looks at the test split as the preset has, or fewer where there are fewer steps than that.
    looks = min(config.epochs, steps)
    data = dataclasses.replace(config.data, epoch=config.batch_size * (steps // looks))
    return dataclasses.replace(config, data=data, epochs=looks)


def folder_of(task: str, contestant: str, seed: int | str) -> str:
    """The name of its folder."""
    return f"{task}-{contestant.replace(', ', '-').replace(' ', '-')}-{seed}"


def parameters_of(config: Config) -> int:
    """How many numbers a puzzle's network learns."""
    solver, adjoint = build_solver(config.solver), build_adjoint(config.adjoint, config.solver)
    task = puzzle_task(config, {}, kind_of(config.data))
    state = nnx.state(nnx.eval_shape(lambda: task.model(solver, adjoint, nnx.Rngs(0))), nnx.Param)
    return sum(leaf.size for leaf in jax.tree.leaves(state))


def _unrolled(config: Config) -> Config:
    depth = config.model.segments * config.model.steps
    return dataclasses.replace(config, model=dataclasses.replace(config.model, kind="unrolled", steps=depth))


def _without_recall(config: Config) -> Config:
    unrolled = _unrolled(config)
    return dataclasses.replace(unrolled, model=dataclasses.replace(unrolled.model, kind="without-recall"))


def _layers(config: Config) -> Config:
    """Narrower ones, of the widths that come nearest to the equilibrium's number of parameters."""
    of = config.model
    like = max(2, round((of.channels * of.inner_channels / DEPTH) ** 0.5))
    ratio = (of.inner_channels / of.channels) ** 0.5

    def of_widths(channels: int, inner: int) -> Config:
        model = dataclasses.replace(of, kind="layers", layers=DEPTH, channels=channels, inner_channels=inner)
        return dataclasses.replace(config, model=model)

    near = range(-4, 5)
    choices = [of_widths(max(2, round(like / ratio) + a), max(2, round(like * ratio) + b)) for a in near for b in near]
    wanted = parameters_of(config)
    return min(choices, key=lambda choice: abs(parameters_of(choice) - wanted))


_PUZZLED: dict[str, Callable[[Config], Config]] = {
    EQUILIBRIUM: lambda config: config,
    UNROLLED: _unrolled,
    WITHOUT_RECALL: _without_recall,
    LAYERS: _layers,
}
