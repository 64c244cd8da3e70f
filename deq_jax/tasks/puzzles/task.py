"""Puzzles as a task: their data, loss and evaluation, for a run that knows none."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from deq_jax.gradients.adjoint import Adjoint, Solver
from deq_jax.tasks.puzzles.config import Config, DataConfig
from deq_jax.tasks.puzzles.model import Logits, PuzzleModel, answered, build_model
from deq_jax.tasks.puzzles.problems import Grid, Kind, Problem, Problems, boards, mazes, prefix_sums, read
from deq_jax.training.disk.folder import read_config
from deq_jax.training.settings.settings import Settings
from deq_jax.training.task import Data, Outcome, Task

OPENER = __name__
"""Where a run's task can be opened again, as config.json has it."""


def open_task(config: Config, splits: Iterable[str] = ("train", "test")) -> Task:
    """The task that the settings describe, with these splits of its data.

    Raises:
        UserError: problems of that difficulty cannot be generated.
    """
    data = config.data
    kind = kind_of(data)
    return puzzle_task(config, {split: _split(data, split, config.seed) for split in splits}, kind)


def puzzle_task(config: Config, splits: dict[str, Any], kind: Kind) -> Task:
    """The task on problems of a kind that are there already."""

    def model(solver: Solver, adjoint: Adjoint, rngs: nnx.Rngs) -> PuzzleModel:
        return build_model(config, kind, solver, adjoint, rngs)

    return Task(
        data=Data(splits, name=f"{config.data.puzzle} of {kind.difficulty}", unit=kind.unit.split()[-1]),
        model=model,
        loss=learned,
        evaluate=evaluated,
        metrics={"exact": "%", "accuracy": "%"},
    )


def reopened(run: Path) -> tuple[Task, Settings, Config]:
    """The task of a run, with the test split alone, and how it was trained; raises as `open_task` does."""
    config = read_config(run, Config)
    return open_task(config, ["test"]), config, config


def of_difficulty(config: Config, difficulty: int) -> Config:
    """The same settings for problems of another difficulty."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, difficulty=difficulty))


def of_file(config: Config, path: Path) -> Task:
    """The task with the problems of a text file to test on; raises UserError where they are none."""
    kind = kind_of(config.data)
    return puzzle_task(config, {"test": read(path, kind)}, kind._replace(difficulty=path.name))


def kind_of(data: DataConfig, split: str = "train") -> Kind:
    """The problems that the settings describe; raises UserError where there are none."""
    if data.puzzle == "prefix-sums":
        return prefix_sums(data.difficulty)
    if data.puzzle == "maze":
        return mazes(data.difficulty)
    # Boards made of those that others were trained on would be too like them.
    return boards(data.side, data.difficulty, bases_seed=int(split == "test"))


def learned(model: PuzzleModel, problems: Problem, report: Any) -> Outcome:
    """Cross-entropy of the answer after the last segment; training makes the mean over all segments small."""
    logits, solution = model.learn(problems.clues, report)
    losses = [cross_entropy(each, problems.answer) for each in logits]
    return Outcome(
        losses[-1],
        solution,
        model.cell_at(problems.clues),
        metrics=_judged(logits[-1], problems.answer),
        objective=jnp.mean(jnp.stack(losses), axis=0),
    )


def evaluated(model: PuzzleModel, problems: Problem) -> Outcome:
    """Cross-entropy, and how many problems are wholly right, and how many of their places."""
    logits, solution = model(problems.clues)
    return Outcome(
        cross_entropy(logits, problems.answer),
        solution,
        model.cell_at(problems.clues),
        metrics=_judged(logits, problems.answer),
    )


def cross_entropy(logits: Logits, answer: Grid) -> Float[Array, " batch"]:
    """Mean over the places of every problem."""
    places = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(answer, jnp.int32))
    return jnp.mean(places, axis=(1, 2))


def _judged(logits: Logits, answer: Grid) -> dict[str, Float[Array, " batch"]]:
    is_right = answered(logits) == answer
    return {
        "exact": jnp.all(is_right, axis=(1, 2)).astype(jnp.float32),
        "accuracy": jnp.mean(is_right.astype(jnp.float32), axis=(1, 2)),
    }


def _split(data: DataConfig, split: str, seed: int) -> Problems | Problem:
    kind = kind_of(data, split)
    if split == "train":
        return Problems(kind, "train", data.epoch, seed)
    # The same for every run, so that runs can be compared.
    return Problems(kind, "test", data.test, seed=0)[np.arange(data.test)]
