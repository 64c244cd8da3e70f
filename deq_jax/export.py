"""A run's classifier as one file that runs without this library: python -m deq_jax.export RUN FILE [--force].

The file is of `jax.export`. It takes images as they are stored, uint8 [batch, height, width, channels], any number of
them, on a CPU, a GPU or a TPU, and gives a dictionary: `probabilities` [batch, classes], and of the solve the relative
`residual` [batch] and the `evaluations` [batch] of the cell.
"""

import sys
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import tyro
from jax import export
from jaxtyping import Array

from deq_jax.tasks.images.data import Images
from deq_jax.tasks.images.use.classifier import Classifier, answering, load
from deq_jax.training.disk.files import write_atomically
from deq_jax.training.errors import UserError, reported_errors
from deq_jax.training.process.cli import parse_function
from deq_jax.training.process.compilation import require_backend
from deq_jax.training.process.signals import interrupts_end_at_once
from deq_jax.training.process.terminal import lasting_output

PLATFORMS = ("cpu", "cuda", "tpu")


def exported(classifier: Classifier) -> export.Exported:
    """The program for any number of images, with the weights in it."""
    answer = answering(classifier)

    def call(images: Images) -> dict[str, Array]:
        # Of types that every JAX knows: a tuple of this library's would have to be registered where the file is read.
        return answer(images)._asdict()

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *classifier.image_shape), jnp.uint8)
    return export.export(jax.jit(call), platforms=PLATFORMS)(images)


def export_run(run: Path, file: Path, checkpoint: str | int = "last", *, force: bool = False) -> Classifier:
    """Writes the classifier of a run to a file, whole or not at all; returns what was exported.

    Raises:
        UserError: the file is there already, its folder is not, or the run cannot be read.
    """
    if file.is_dir():
        raise UserError(f"{file} is a folder; name a file in it, such as {file / 'model.jax'}.")
    if file.exists() and not force:
        raise UserError(f"{file} exists already; give --force to replace it, or another name.")
    if not file.parent.is_dir():
        raise UserError(f"there is no folder {file.parent} to write {file.name} to; make it, or name another.")
    classifier = load(run, checkpoint)
    write_atomically(file, bytes(exported(classifier).serialize()))
    return classifier


def _command(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    checkpoint: Annotated[str, tyro.conf.arg(metavar="best|last|STEP")] = "last",
    force: bool = False,
) -> tuple[Path, Path, str, bool]:
    """Writes a run's classifier to one file, which runs by jax alone.

    Args:
        run: Folder of the run, the --out of its training.
        file: The file to write.
        checkpoint: The weights to export: the last, the best on the test split, or those of a step.
        force: Replace the file where there is one already.
    """
    return run, file, checkpoint, force


def main(arguments: list[str]) -> None:
    """The command line."""
    with reported_errors():
        run, file, checkpoint, force = parse_function(
            _command, arguments, prog="python -m deq_jax.export", has_switches=True
        )
        require_backend()
        classifier = export_run(run, file, checkpoint, force=force)
        if classifier.note:
            print(f"note: {classifier.note}", file=sys.stderr)
        shape = ", ".join(map(str, classifier.image_shape))
        print(
            f"{file}: step {classifier.step:,} of {run}, for images uint8 [batch, {shape}] on {', '.join(PLATFORMS)}."
        )
        print(f"Classes, in the order of the probabilities: {', '.join(classifier.classes)}.")


if __name__ == "__main__":
    with lasting_output(), interrupts_end_at_once():
        main(sys.argv[1:])
