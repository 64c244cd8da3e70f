"""What a run's network answers, problem by problem, and whether its solves are to be believed."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from deq_jax.solution import Status
from deq_jax.tasks.measuring import with_solve
from deq_jax.tasks.puzzles.bodies import State
from deq_jax.tasks.puzzles.config import Config
from deq_jax.tasks.puzzles.model import answered
from deq_jax.tasks.puzzles.problems import Grid, read
from deq_jax.tasks.puzzles.task import kind_of, puzzle_task
from deq_jax.training.disk.folder import read_config
from deq_jax.training.loading import restored
from deq_jax.training.steps.batches import eval_batch_size, eval_batches
from deq_jax.training.steps.model import opened


class Answers(NamedTuple):
    """Of a batch of problems what a network made of each."""

    answer: Grid
    """The likeliest class in every place."""
    residual: Float[Array | np.ndarray, " batch"]
    """Relative residual of the solve; infinite where nothing was solved, as of ordinary layers."""
    evaluations: Int[Array | np.ndarray, " batch"]
    """Of the cell."""
    status: Int[Array | np.ndarray, " batch"]
    """A [`deq_jax.Status`][]."""
    state: State | np.ndarray
    """Where the solve stopped."""


Network = Callable[[Grid, State | None], Answers]


def network(run: Path, config: Config, checkpoint: str | int = "last") -> Network:
    """The function (clues, z0) → `Answers` of a run's network, solved as an evaluation of this configuration.

    Clues are a batch ``[batch, height, width]``; the solve starts from ``z0``, or from zeros where it is None.

    Raises:
        UserError: the run holds no such checkpoint, or one of another network.
    """
    task = puzzle_task(config, {}, kind_of(config.data))
    fresh, state = restored(run, task, config, checkpoint)
    with_arrays = opened(fresh, training=False)

    # The weights are arguments: one program serves the runs of all seeds.
    @jax.jit
    def answer(arrays: Any, clues: Grid, z0: State | None) -> Answers:
        logits, solution = with_arrays(*arrays)(clues, z0)
        return Answers(answered(logits), solution.residual, solution.iterations, solution.status, solution.value)

    return lambda clues, z0: answer(state.evaluated, clues, z0)


def answers(network: Network, clues: Grid, batch_size: int, z0: np.ndarray | None = None) -> Answers:
    """The answers to any number of problems of one size, as NumPy arrays, so many at a time."""
    parts = [
        [value[batch.mask] for value in jax.device_get(network(*batch.examples))]
        for batch in eval_batches((clues, z0), eval_batch_size(len(clues), batch_size))
    ]
    return Answers(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def answer_files(
    run: Path,
    files: Sequence[Path],
    *,
    max_iter: int | None = None,
    abstain: float | None = None,
    checkpoint: str | int = "last",
) -> Iterator[dict[str, Any]]:
    """The answers to all problems of text files, in the files' order, as JSON objects.

    `file`, `problem` (its number there), `status` of the solve, `refused` (whether its residual is above ``abstain``;
    where that is None, whether it is not CONVERGED), `residual` (None where it is not finite), `evaluations`, `right`
    (as a program that has learned nothing finds), and `answer`, a line a row.

    Raises:
        UserError: no run, no such checkpoint, a file that holds no problems of this kind, one of another size than the
            network takes, without an answer or with several.
    """
    config = with_solve(read_config(run, Config), None, max_iter)
    kind = kind_of(config.data)
    problems = [read(path, kind) for path in files]
    solved = network(run, config, checkpoint)
    for path, (clues, right) in zip(files, problems, strict=True):
        found = answers(solved, clues, config.batch_size)
        for i, grid in enumerate(found.answer):
            residual, status = float(found.residual[i]), Status(int(found.status[i]))
            refused = status != Status.CONVERGED if abstain is None else not residual <= abstain
            yield {
                "file": str(path),
                "problem": i + 1,
                "status": status.name,
                "refused": refused,
                "residual": residual if math.isfinite(residual) else None,
                "evaluations": int(found.evaluations[i]),
                "right": bool((grid == right[i]).all()),
                "answer": kind.write(clues[i], grid),
            }


def block(row: dict[str, Any]) -> Iterator[str]:
    """An answer in lines: what it is worth, and the answer."""
    residual = "–" if row["residual"] is None else f"{row['residual']:.1e}"
    verdict = "refused" if row["refused"] else "kept"
    yield (
        f"{row['file']}, problem {row['problem']}: {row['status']} after {row['evaluations']} evaluations, residual "
        f"{residual}: {verdict}; {'right' if row['right'] else 'wrong'}"
    )
    yield from (f"  {line}" for line in row["answer"])
