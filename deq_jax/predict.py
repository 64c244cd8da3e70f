"""What a run says of images, or of puzzles: python -m deq_jax.predict RUN FILE... [--json] [--checkpoint best].

Of images a table, or with --json an object a line: `file`, `class`, `probability`, `residual` (of the solve, relative)
and `evaluations` (of the cell f); there a value that is not finite is null. Files that are no images are named on
stderr, the others are predicted, and the exit status is 2. Of puzzles, in text files, the answers and whether their
solves are to be believed: see `deq_jax.tasks.puzzles.answers`.
"""

import itertools
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro
from jaxtyping import UInt8

from deq_jax.tasks.images.use.classifier import Classifier, answering, load
from deq_jax.tasks.images.use.pictures import UnreadableError, read, require_channels
from deq_jax.tasks.puzzles import answers as puzzles
from deq_jax.tasks.puzzles.task import OPENER as PUZZLES
from deq_jax.training.devices.devices import all_devices
from deq_jax.training.disk.folder import opener_of
from deq_jax.training.errors import UserError, reported_errors
from deq_jax.training.process.cli import parse_function
from deq_jax.training.process.compilation import require_backend, told_of_memory, use_persistent_cache
from deq_jax.training.process.signals import interrupts_end_at_once
from deq_jax.training.process.terminal import lasting_output
from deq_jax.training.steps.batches import eval_batch_size

Pixels = UInt8[np.ndarray, "height width channels"]


def predictions(classifier: Classifier, images: Iterable[Any], batch_size: int) -> Iterator[dict[str, Any]]:
    """Class, probability, residual and evaluations of every image, `Pixels` of the model's shape.

    A value that is not finite is None. An answer does not depend on the others in its batch.
    """
    devices = all_devices()
    answer = devices.jitted(answering(classifier._replace(weights=devices.everywhere(classifier.weights))))
    batch_size = devices.even(batch_size)
    for batch in itertools.batched(images, batch_size):
        # The last one is filled up with its first image, so that one program serves all.
        pixels = np.stack([*batch, *[batch[0]] * (batch_size - len(batch))])
        said = jax.device_get(answer(devices.spread(pixels)))
        for probabilities, residual, evaluations in zip(*(part[: len(batch)] for part in said), strict=True):
            most = int(probabilities.argmax())
            yield {
                "class": classifier.classes[most],
                "probability": _finite(probabilities[most]),
                "residual": _finite(residual),
                "evaluations": int(evaluations),
            }


def predict_files(
    classifier: Classifier, files: Sequence[str], failed: list[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    """The predictions of image files, named `file`; those that cannot be read go to `failed`, with the reason."""
    require_channels(classifier.image_shape[-1])
    named: list[str] = []

    def images() -> Iterator[Pixels]:
        for file in files:
            try:
                pixels = read(Path(file), classifier.image_shape)
            except UnreadableError as error:
                failed.append((file, str(error)))
            else:
                named.append(file)
                yield pixels

    batch_size = eval_batch_size(len(files), classifier.config.batch_size)
    for k, prediction in enumerate(predictions(classifier, images(), batch_size)):
        yield {"file": named[k]} | prediction


def _table(rows: Iterable[dict[str, Any]], files: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
    """Lines in columns, each as soon as its row is there."""
    file, name = max(map(len, ["file", *map(_shown, files)])), max(map(len, ["class", *classes]))
    yield f"{'file':{file}}  {'class':{name}}  probability  residual  evaluations"
    for row in rows:
        probability = "–" if row["probability"] is None else f"{row['probability']:.2%}"
        residual = "–" if row["residual"] is None else f"{row['residual']:.1e}"
        start = f"{_shown(row['file']):{file}}  {row['class']:{name}}"
        yield f"{start}  {probability:>11}  {residual:>8}  {row['evaluations']:>11}"


def _shown(file: str) -> str:
    """A name that can be printed: one need not be of UTF-8."""
    return file.encode(errors="backslashreplace").decode()


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


class _Given(NamedTuple):
    run: Path
    files: tuple[str, ...]
    json: bool
    checkpoint: str
    max_iter: int | None
    abstain: float | None


def _command(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE...")],
    json: bool = False,
    checkpoint: Annotated[str, tyro.conf.arg(metavar="best|last|STEP")] = "last",
    max_iter: int | None = None,
    abstain: float | None = None,
) -> _Given:
    """Says the class of image files of any size, or answers puzzles, and how far the solves have come.

    Args:
        run: Folder of the run, the --out of its training.
        files: Image files, resized and cropped to the size of the images that the model was trained on; or text files
            of puzzles, a character a place, an empty line between two of them.
        json: Print a JSON object a line.
        checkpoint: The weights to use: the last, the best on the test split, or those of a step.
        max_iter: Of puzzles: evaluations of f at most. None: the run's own.
        abstain: Of puzzles: the residual above which an answer is refused. None: those are whose solve has not
            converged.
    """
    return _Given(run, files, json, checkpoint, max_iter, abstain)


def main(arguments: list[str]) -> None:
    """The command line."""
    with reported_errors(), told_of_memory("number of images at a time"):
        given = parse_function(_command, arguments, prog="python -m deq_jax.predict", has_switches=True)
        if not given.files:
            raise UserError("no file is named: python -m deq_jax.predict RUN FILE...")
        require_backend()
        use_persistent_cache()
        if opener_of(given.run) == PUZZLES:
            _answer(given)
        elif given.max_iter is not None or given.abstain is not None:
            raise UserError(f"--max-iter and --abstain go with runs on puzzles; {given.run} holds none.")
        else:
            _classify(given)


def _answer(given: _Given) -> None:
    paths = [Path(file) for file in given.files]
    rows = puzzles.answer_files(
        given.run, paths, max_iter=given.max_iter, abstain=given.abstain, checkpoint=given.checkpoint
    )
    for row in rows:
        for line in [json.dumps(row, allow_nan=False)] if given.json else puzzles.block(row):
            print(line, flush=True)


def _classify(given: _Given) -> None:
    classifier = load(given.run, given.checkpoint)
    if classifier.note:
        print(f"note: {classifier.note}", file=sys.stderr)
    failed: list[tuple[str, str]] = []
    rows = predict_files(classifier, given.files, failed)
    lines = (json.dumps(row, allow_nan=False) for row in rows)
    for line in lines if given.json else _table(rows, given.files, classifier.classes):
        print(line, flush=True)
    for file, why in failed:
        print(f"error: {_shown(file)} cannot be predicted: {why}.", file=sys.stderr)
    if failed:
        sys.exit(UserError.status)


if __name__ == "__main__":
    with lasting_output(), interrupts_end_at_once():
        main(sys.argv[1:])
