"""What a trained network does with problems harder than it was trained on."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deq_jax.states.trees import flatten_samples
from deq_jax.tasks.measuring import with_solve
from deq_jax.tasks.puzzles.config import Config
from deq_jax.tasks.puzzles.model import PuzzleModel, answered
from deq_jax.tasks.puzzles.problems import Problem
from deq_jax.tasks.puzzles.task import of_difficulty, open_task
from deq_jax.training.loading import restored
from deq_jax.training.steps.batches import eval_batches
from deq_jax.training.steps.model import opened

TOL = 1e-4


class Solved(NamedTuple):
    """Problem by problem."""

    exact: np.ndarray
    residual: np.ndarray
    evaluations: np.ndarray
    answer: np.ndarray
    state: np.ndarray
    """Flat, ``[problems, n]``."""


class Network:
    """A trained run, solved at any difficulty, with any number of evaluations, from any start."""

    def __init__(self, config: Config):
        self.config = config

    def problems(self, difficulty: int, count: int) -> Problem:
        """Those of the test split."""
        data = dataclasses.replace(self.config.data, difficulty=difficulty, test=count)
        return open_task(dataclasses.replace(self.config, data=data), ["test"]).data.splits["test"]

    def solve(self, problems: Problem, max_iter: int, start: int | None = None) -> Solved:
        """From zeros, or from the random state of a number."""
        solved = self._solver(max_iter)
        parts = []
        for batch in eval_batches(problems, self.config.batch_size):
            key = None if start is None else jax.random.key(start)
            values = jax.device_get(solved(batch.examples.clues, key))
            parts.append([np.asarray(value)[batch.mask] for value in values])
        answer, residual, evaluations, state = (np.concatenate(values) for values in zip(*parts, strict=True))
        exact = (answer == problems.answer).all((1, 2))
        return Solved(exact, residual, evaluations, answer, state)

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def _solver(self, max_iter: int) -> Callable[..., tuple[Any, ...]]:
        config = with_solve(of_difficulty(self.config, self.config.data.difficulty), TOL, max_iter)
        task = open_task(dataclasses.replace(config, data=dataclasses.replace(config.data, test=1)), ["test"])
        fresh, state = restored(config.out, task, config)
        model: PuzzleModel = opened(fresh, training=False)(*state.evaluated)

        @jax.jit
        def solved(clues: Any, key: Any) -> tuple[Any, ...]:
            z0 = None
            if key is not None:
                shape = (*clues.shape, config.model.channels)
                z0 = jax.random.normal(key, shape)
            logits, solution = model(clues, z0)
            flat = jnp.concatenate(jax.tree.leaves(flatten_samples(solution.value)), axis=1)
            return answered(logits), solution.residual, solution.iterations, flat

        return solved


class Calibration(NamedTuple):
    """Refusing what did not converge."""

    threshold: float
    """Residual above which an answer is refused."""
    found: float
    """Share of the wrong answers that are refused."""
    refused: float
    """Share of the right ones that are."""


def calibrated(solved: Solved, most_refused: float = 0.05) -> Calibration | None:
    """The threshold that refuses the most wrong answers and at most so many right ones; None without both kinds."""
    right, wrong = solved.residual[solved.exact], solved.residual[~solved.exact]
    if not len(right) or not len(wrong):
        return None
    threshold = float(np.sort(right)[len(right) - 1 - int(most_refused * len(right))])
    return Calibration(threshold, float((wrong > threshold).mean()), float((right > threshold).mean()))


def agreement(one: Solved, other: Solved) -> tuple[float, float]:
    """Of solves from two starts: the share of problems with one answer, and the mean cosine between the states.

    Source: the asymptotic alignment of Anil et al., "Path independent equilibrium models can better exploit test-time
    computation", 2022.
    """
    same = (one.answer == other.answer).all((1, 2)).mean()
    lengths = np.linalg.norm(one.state, axis=1) * np.linalg.norm(other.state, axis=1)
    return float(same), float(((one.state * other.state).sum(1) / lengths).mean())


def best_of(solves: list[Solved]) -> float:
    """The share of problems that are right where of every one the solve of the lowest residual counts."""
    residuals = np.stack([solve.residual for solve in solves])
    exact = np.stack([solve.exact for solve in solves])
    return float(np.take_along_axis(exact, residuals.argmin(0)[None], 0).mean())
