"""Evaluates a run's latest checkpoint: python -m deq_jax.evaluate RUN [--data-dir DIR] [--split test].

Prints one JSON object: `loss`, `accuracy`, `count` (images), `forward_iterations` (evaluations of f an image, on
average), `forward_residual`, `converged` (share of images whose solve reached its tolerance), `step`, `dataset` and
`split`. A value that is not finite is null.
"""

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from deq_jax.training import checkpoints
from deq_jax.training.build import build_model, build_optimizer
from deq_jax.training.cli import parse_function
from deq_jax.training.compilation import use_persistent_cache
from deq_jax.training.data import eval_batches, load
from deq_jax.training.errors import UserError, reported_errors
from deq_jax.training.evaluation import evaluate
from deq_jax.training.folder import read_config
from deq_jax.training.step import create_state, make_eval_step


def evaluate_run(run: Path, data_dir: Path | None = None, split: str = "test") -> dict[str, Any]:
    """What the latest readable checkpoint of a run achieves on a split, with the run's own solver settings.

    Args:
        run: the folder that training wrote, its --out.
        data_dir: where the data set lies; None for where the run found it.
        split: "test" or "train".

    Raises:
        UserError: no run, no checkpoint, or no data.
    """
    config = read_config(run)
    dataset = load(config.dataset, split, data_dir or config.data_dir)
    height, width, channels = dataset.images.shape[1:]
    model = build_model(config, (height, width, channels), dataset.num_classes)
    # The checkpoint holds Adam's moments, too; how long its schedule is does not change their form.
    restored = checkpoints.restore(run, like=create_state(model, build_optimizer(config.optimizer, total_steps=1)))
    if restored is None:
        raise UserError(f"{run} holds no checkpoint. Start its training again to get one.")
    means = evaluate(
        jax.jit(make_eval_step(model)), restored.state, eval_batches(dataset, config.batch_size), lambda: False
    )
    assert means is not None
    means["converged"] = means.pop("forward_converged")
    measured = {name: value if math.isfinite(value) else None for name, value in means.items()}
    count = int(measured.pop("images") or 0)
    return {
        **measured,
        "count": count,
        "step": int(restored.state.step),
        "dataset": config.dataset,
        "split": split,
    }


def _command(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    data_dir: Path | None = None,
    split: Literal["test", "train"] = "test",
) -> tuple[Path, Path | None, str]:
    """Evaluates the latest checkpoint of a run, and prints one JSON object.

    Args:
        run: Folder of the run, the --out of its training.
        data_dir: Folder of prepared TFDS data sets. None: where the run found them.
        split: The images to evaluate on.
    """
    return run, data_dir, split


def main(arguments: list[str]) -> None:
    """The command line."""
    with reported_errors():
        run, data_dir, split = parse_function(_command, arguments, prog="python -m deq_jax.evaluate")
        use_persistent_cache()
        print(json.dumps(evaluate_run(run, data_dir, split), allow_nan=False))


if __name__ == "__main__":
    main(sys.argv[1:])
