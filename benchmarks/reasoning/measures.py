"""What a trained network does with puzzles harder than it was trained on, with as many evaluations as one likes."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from benchmarks.reasoning.contestants import EQUILIBRIUM, LAYERS, Questions
from deq_jax.tasks.measuring import with_solve
from deq_jax.tasks.puzzles.answers import Answers, answers, network
from deq_jax.tasks.puzzles.config import Config
from deq_jax.tasks.puzzles.problems import Problem
from deq_jax.tasks.puzzles.task import open_task

TOL = 1e-4
STARTS = 5
"""Starts of which the one of the lowest residual is picked: zeros, and random ones."""
_COMPARED = 32
"""Problems at each difficulty that are solved from several starts."""


class Measured:
    """A finished run, solved at any difficulty, with any number of evaluations, from any start."""

    def __init__(self, config: Config, questions: Questions):
        self.config = config
        self.questions = questions

    def problems(self, difficulty: int) -> Problem:
        """Those of the test split."""
        data = dataclasses.replace(self.config.data, difficulty=difficulty, test=self.questions.problems)
        return open_task(dataclasses.replace(self.config, data=data), ["test"]).data.splits["test"]

    def solve(self, clues: Any, max_iter: int, z0: np.ndarray | None = None) -> Answers:
        """From zeros, or from states that are given."""
        return answers(self._network(max_iter), clues, self.config.batch_size, z0)

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def _network(self, max_iter: int) -> Any:
        return network(self.config.out, with_solve(self.config, TOL, max_iter))

    def random_states(self, clues: Any, seed: int) -> np.ndarray:
        """States to start from, of a normal distribution, as half of those in training."""
        shape = (*clues.shape, self.config.model.channels)
        return np.asarray(jax.random.normal(jax.random.key(seed), shape))


def measured(config: Config, questions: Questions, contestant: str) -> dict[str, Any]:
    """All that is asked of one run, as JSON values.

    `problems`: by difficulty, by evaluations at most, three lists, a number a problem: `wrong` (share of its places),
    `residual` and `evaluations`. `independence`: by difficulty, see `independence`. `restarts`: see `restarts`.
    """
    run, last = Measured(config, questions), questions.evaluations[-1]
    found: dict[str, Any] = {"problems": {}, "independence": {}}
    for difficulty in questions.difficulties:
        problems = run.problems(difficulty)
        # Layers are as many as they are.
        numbers = (last,) if contestant == LAYERS else questions.evaluations
        solved = {number: run.solve(problems.clues, number) for number in numbers}
        found["problems"][str(difficulty)] = {str(number): _told(solved[number], problems) for number in numbers}
        if contestant != LAYERS:
            found["independence"][str(difficulty)] = independence(run, problems, last)
        if contestant == EQUILIBRIUM and difficulty == questions.difficulties[-1]:
            found["restarts"] = restarts(run, problems, last, solved[last])
    return found


def independence(run: Measured, problems: Problem, max_iter: int) -> dict[str, float]:
    """Whether solves from other starts come to the same, of some problems.

    `same_answer` is the share of problems with one answer from zeros and from a random state. `alignment` is the mean
    cosine between where solves come to from zeros and from the state that another problem's solve has come to, and
    `random_alignment` from a random state.

    Source: the asymptotic alignment of Anil et al., "Path independent equilibrium models can better exploit test-time
    computation", 2022.
    """
    clues = problems.clues[:_COMPARED]
    zero = run.solve(clues, max_iter)
    random = run.solve(clues, max_iter, run.random_states(clues, seed=1))
    other = run.solve(clues, max_iter, np.roll(zero.state, 1, axis=0))
    return {
        "same_answer": float((zero.answer == random.answer).all((1, 2)).mean()),
        "alignment": cosine(zero, other),
        "random_alignment": cosine(zero, random),
    }


def cosine(one: Answers, other: Answers) -> float:
    """The mean cosine between the states of the same problems."""
    a, b = (np.asarray(solved.state).reshape(len(solved.state), -1) for solved in (one, other))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / lengths).mean())


def restarts(run: Measured, problems: Problem, max_iter: int, zero: Answers) -> dict[str, float]:
    """The share of problems that are right from zeros, of `STARTS` starts by the lowest residual, and by any."""
    clues = problems.clues
    solves = [zero, *(run.solve(clues, max_iter, run.random_states(clues, seed)) for seed in range(1, STARTS))]
    exact = np.stack([(solve.answer == problems.answer).all((1, 2)) for solve in solves])
    picked = best_of(np.stack([solve.residual for solve in solves]), exact)
    return {"zeros": float(exact[0].mean()), "picked": float(picked.mean()), "any": float(exact.any(0).mean())}


def best_of(residual: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Whether the solve of the lowest residual is right, of arrays [starts, problems]."""
    return np.take_along_axis(exact, residual.argmin(0)[None], 0)[0]


def _told(solved: Answers, problems: Problem) -> dict[str, list[float]]:
    wrong = (solved.answer != problems.answer).mean((1, 2))
    # Strict JSON has no infinity: what has no residual, has a large one.
    residual = np.nan_to_num(np.asarray(solved.residual, float), nan=1e9, posinf=1e9)
    return {
        "wrong": [float(f"{share:.4g}") for share in wrong],
        "residual": [float(f"{value:.3g}") for value in residual],
        "evaluations": solved.evaluations.tolist(),
    }
