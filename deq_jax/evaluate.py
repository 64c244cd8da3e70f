"""Evaluates a run's latest checkpoint: python -m deq_jax.evaluate RUN [--data-dir DIR] [--split test] [--tol 1e-4].

Prints one JSON object: `loss`, `accuracy`, `count` (images), `forward_iterations` (evaluations of f an image, on
average), `forward_residual`, `converged` (share of images whose solve reached its tolerance), `step`, `dataset`,
`split`, the solve's `tol` and `max_iter`, and `flip`: whether an image's logits are averaged with its mirror image's,
of which the solve is not counted. A value that is not finite is null.
"""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from deq_jax.tasks.images.config import Config, settings_of
from deq_jax.tasks.images.task import OPENER, open_task
from deq_jax.training.disk.folder import read_config, require_task
from deq_jax.training.errors import UserError, reported_errors
from deq_jax.training.loading import restored
from deq_jax.training.process.cli import parse_function
from deq_jax.training.process.compilation import require_backend, use_persistent_cache
from deq_jax.training.promises import evaluation_of
from deq_jax.training.settings.solves import filled_from
from deq_jax.training.steps.batches import eval_batches
from deq_jax.training.steps.evaluation import evaluate
from deq_jax.training.steps.step import make_eval_step


def evaluate_run(
    run: Path,
    data_dir: Path | None = None,
    split: str = "test",
    tol: float | None = None,
    max_iter: int | None = None,
) -> dict[str, Any]:
    """What the latest readable checkpoint of a run achieves on a split.

    Args:
        run: the folder that training wrote, its --out.
        data_dir: where the data set lies; None for where the run found it.
        split: "test" or "train".
        tol: relative residual at which a solve is done; None for the run's own.
        max_iter: evaluations of f at most; None for the run's own.

    Raises:
        UserError: no run, no checkpoint, no data, or a setting that no solve can use.
    """
    require_task(run, OPENER, "training.load reads it in Python")
    config = _with_solve(read_config(run, Config), tol, max_iter)
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=data_dir)
    task, settings = open_task(config, [split]), settings_of(config)
    model, state = restored(run, task, settings)
    means = evaluate(
        jax.jit(make_eval_step(model, evaluation_of(task))),
        state,
        eval_batches(task.data.splits[split], settings.batch_size),
    )
    assert means is not None
    means["converged"] = means.pop("forward_converged")
    measured = {name: value if math.isfinite(value) else None for name, value in means.items()}
    count = int(measured.pop("samples") or 0)
    solver = filled_from(settings.evaluation, settings.solver)
    return {
        **measured,
        "count": count,
        "step": int(state.step),
        "dataset": config.dataset,
        "split": split,
        "tol": solver.tol,
        "max_iter": solver.max_iter,
        "flip": config.evaluation.flip,
    }


def _with_solve(config: Config, tol: float | None, max_iter: int | None) -> Config:
    """The configuration to evaluate by: the run's, but for what is given here."""
    given: dict[str, Any] = {name: value for name, value in (("tol", tol), ("max_iter", max_iter)) if value is not None}
    try:
        return dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, **given))
    except ValueError as error:
        raise UserError(f"--{str(error).replace('_', '-')}") from error


def _command(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    data_dir: Path | None = None,
    split: Literal["test", "train"] = "test",
    tol: float | None = None,
    max_iter: int | None = None,
) -> tuple[Path, Path | None, str, float | None, int | None]:
    """Evaluates the latest checkpoint of a run, and prints one JSON object.

    Args:
        run: Folder of the run, the --out of its training.
        data_dir: Folder of prepared TFDS data sets. None: where the run found them.
        split: The images to evaluate on.
        tol: Relative residual at which a solve is done. None: the run's own.
        max_iter: Evaluations of f at most. None: the run's own.
    """
    return run, data_dir, split, tol, max_iter


def main(arguments: list[str]) -> None:
    """The command line."""
    with reported_errors():
        given = parse_function(_command, arguments, prog="python -m deq_jax.evaluate")
        require_backend()
        use_persistent_cache()
        print(json.dumps(evaluate_run(*given), allow_nan=False))


if __name__ == "__main__":
    main(sys.argv[1:])
