"""Evaluates a run: python -m deq_jax.evaluate RUN [--checkpoint best] [--split test] [--tol 1e-4] [--data-dir DIR].

Prints one JSON object. Of a run on puzzles, text or inverse problems it has the task's metrics, and `--difficulty` and
`--max-iter` may be other than they ever were in training: see `deq_jax.tasks.measuring`; with `--abstain
RESIDUAL`, what refusing answers of a larger residual is worth. Of one on images: `loss`,
`accuracy`, `forward_iterations` (evaluations of f an image, on average),
`forward_residual`, `converged` (share of images whose solve reached its tolerance), `class_accuracy` (by the classes'
names), `count` (images), `step`, `dataset`, `split`, the solve's `tol` and `max_iter`, and `flip`: whether an image's
logits are averaged with its mirror image's, of which the solve is not counted. Of a run with `--evaluation.epsilon`
there is `certified_accuracy`, at that `epsilon`, too. A value that is not finite is null, and
so is the accuracy of a class without an image. The confusion matrix is drawn into the run, as confusion.png, or
confusion-train.png where the split is that of training.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro
from jaxtyping import Int

from deq_jax.tasks.images.config import Config, settings_of
from deq_jax.tasks.images.task import OPENER, open_task
from deq_jax.tasks.images.use.confusion import measured
from deq_jax.tasks.measuring import MEASURED, measured_run, with_solve
from deq_jax.training.disk.folder import opener_of, read_config, require_task
from deq_jax.training.errors import UserError, reported_errors
from deq_jax.training.loading import restored
from deq_jax.training.process.cli import parse_function
from deq_jax.training.process.compilation import require_backend, use_persistent_cache
from deq_jax.training.process.signals import interrupts_end_at_once
from deq_jax.training.process.terminal import lasting_output
from deq_jax.training.settings.solves import filled_from


class Evaluation(NamedTuple):
    """What a checkpoint achieves."""

    result: dict[str, Any]
    """What the command prints."""
    confusion: Int[np.ndarray, "classes classes"]
    """In row i and column j, how many images of class i were taken for class j."""
    classes: Sequence[str]


def evaluate_run(
    run: Path,
    data_dir: Path | None = None,
    split: str = "test",
    tol: float | None = None,
    max_iter: int | None = None,
    checkpoint: str | int = "last",
) -> dict[str, Any]:
    """What a checkpoint of a run achieves on a split: what the command prints.

    Args:
        run: the folder that training wrote, its --out.
        data_dir: where the data set lies; None for where the run found it.
        split: "test" or "train".
        tol: relative residual at which a solve is done; None for the run's own.
        max_iter: evaluations of f at most; None for the run's own.
        checkpoint: "last", the latest readable one; "best", on the test split; or a step.

    Raises:
        UserError: no run, no such checkpoint, no data, or a setting that no solve can use.
    """
    return evaluated(run, data_dir, split, tol, max_iter, checkpoint).result


def evaluated(
    run: Path, data_dir: Path | None, split: str, tol: float | None, max_iter: int | None, checkpoint: str | int
) -> Evaluation:
    """The same, class by class; takes and raises what `evaluate_run` does."""
    require_task(run, OPENER, "training.load reads it in Python")
    config = with_solve(read_config(run, Config), tol, max_iter)
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=data_dir)
    task, settings = open_task(config, [split]), settings_of(config)
    model, state = restored(run, task, settings, checkpoint)
    classes = task.data.classes
    assert classes is not None
    means, confusion = measured(
        model,
        state.evaluated,
        task.data.splits[split],
        len(classes),
        settings.batch_size,
        flip=config.evaluation.flip,
        epsilon=config.evaluation.epsilon,
        precision=config.precision,
    )
    counts, hits = confusion.sum(1), confusion.diagonal()
    solver = filled_from(settings.evaluation, settings.solver)
    result = {
        **{name: value if math.isfinite(value) else None for name, value in means.items()},
        "class_accuracy": {
            name: hit / count if count else None
            for name, hit, count in zip(classes, hits.tolist(), counts.tolist(), strict=True)
        },
        "count": int(counts.sum()),
        "step": int(state.step),
        "dataset": config.dataset,
        "split": split,
        "tol": solver.tol,
        "max_iter": solver.max_iter,
        "flip": config.evaluation.flip,
        **({} if config.evaluation.epsilon is None else {"epsilon": config.evaluation.epsilon}),
    }
    return Evaluation(result, confusion, classes)


def draw(run: Path, evaluation: Evaluation) -> None:
    """Draws the confusion matrix into the run.

    Raises:
        UserError: it cannot be drawn, or the folder not be written to.
    """
    result = evaluation.result
    title = f"{run.absolute().name}, {result['split']} split, step {result['step']:,}: {result['accuracy']:.2%}"
    name = "confusion.png" if result["split"] == "test" else f"confusion-{result['split']}.png"
    temporary = run / f".{name}"
    try:
        from deq_jax import plots  # here, since it may not even be imported: of a backend that there is not

        figure = plots.confusion(evaluation.confusion, evaluation.classes, title=title.replace("$", r"\$"))
        figure.savefig(temporary, dpi=110, format="png")
        temporary.replace(run / name)
    except Exception as error:  # of whatever a drawing library raises
        raise UserError(f"{run / name} is not drawn ({type(error).__name__}: {error}).") from error


class _Given(NamedTuple):
    run: Path
    data_dir: Path | None
    split: str
    tol: float | None
    max_iter: int | None
    checkpoint: str
    difficulty: int | None
    problems: Path | None
    abstain: float | None
    beta: float | None


def _command(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    data_dir: Path | None = None,
    split: Literal["test", "train"] = "test",
    tol: float | None = None,
    max_iter: int | None = None,
    checkpoint: Annotated[str, tyro.conf.arg(metavar="best|last|STEP")] = "last",
    difficulty: int | None = None,
    problems: Path | None = None,
    abstain: float | None = None,
    beta: float | None = None,
) -> _Given:
    """Evaluates a run: prints one JSON object, and of a run on images draws confusion.png into it.

    Args:
        run: Folder of the run, the --out of its training.
        data_dir: Folder of prepared TFDS data sets. None: where the run found them.
        split: The images to evaluate on.
        tol: Relative residual at which a solve is done. None: the run's own.
        max_iter: Evaluations of f at most. None: the run's own.
        checkpoint: The weights to evaluate: the last, the best on the test split, or those of a step.
        difficulty: Of puzzles: bits of a string, tiles a side of a maze, givens of a board. None: that of training.
        problems: Puzzles, or a text, of your own: a file. None: those of the run.
        abstain: Residual above which an answer is refused; said is what that is worth. Not of images. None: all count.
        beta: Share of its step that a solve takes, below 1 where it swings. Not of images. None: the run's own.
    """
    return _Given(run, data_dir, split, tol, max_iter, checkpoint, difficulty, problems, abstain, beta)


def main(arguments: list[str]) -> None:
    """The command line."""
    with reported_errors():
        given = parse_function(_command, arguments, prog="python -m deq_jax.evaluate")
        require_backend()
        use_persistent_cache()
        if opener_of(given.run) in MEASURED:
            print(json.dumps(measured_run(*given), allow_nan=False), flush=True)
            return
        if any(value is not None for value in (given.difficulty, given.problems, given.abstain, given.beta)):
            raise UserError(
                f"--difficulty, --problems, --abstain and --beta go with runs on puzzles, text or inverse problems; "
                f"{given.run} holds none."
            )
        evaluation = evaluated(*given[:-4])
        print(json.dumps(evaluation.result, allow_nan=False), flush=True)
        try:
            draw(given.run, evaluation)
        except UserError as error:  # as of a run in a folder that may only be read
            print(f"warning: {error}", file=sys.stderr)


if __name__ == "__main__":
    with lasting_output(), interrupts_end_at_once():
        main(sys.argv[1:])
