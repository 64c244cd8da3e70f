"""A run's classifier, as its folder has it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from deq_jax.tasks.images.config import Config, settings_of
from deq_jax.tasks.images.data import Dataset, Examples, Images
from deq_jax.tasks.images.task import OPENER, answered, image_task, open_task
from deq_jax.training.disk import checkpoints, environment
from deq_jax.training.disk.folder import read_config, require_task
from deq_jax.training.loading import restored
from deq_jax.training.steps.model import opened
from deq_jax.training.steps.solving import in_precision
from deq_jax.training.task import Task


class Classifier(NamedTuple):
    """A model with the weights of a checkpoint, solved as the run's evaluations are."""

    config: Config
    model: nnx.Module
    weights: tuple[PyTree, PyTree]
    """Parameters and batch statistics, or their averages where the run keeps them."""
    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    classes: tuple[str, ...]
    step: int
    note: str | None
    """Where the run has not come to its end, how far it is."""


class Answer(NamedTuple):
    """What the model says of a batch of images."""

    probabilities: Float[Array, "batch classes"]
    residual: Float[Array, " batch"]
    """Relative residual of the solve; infinite where there is none, as of ordinary layers."""
    evaluations: Int[Array, " batch"]


def load(run: Path, checkpoint: str | int = "last") -> Classifier:
    """The classifier of a run. The data that it was trained on are read only where the folder does not describe them.

    Raises:
        UserError: it is no run of images, is damaged, or has no such checkpoint.
    """
    require_task(run, OPENER, "training.load reads it in Python")
    config = read_config(run, Config)
    known = environment.latest(run)
    task = _described(config, known) or open_task(config, ["test"])
    settings = settings_of(config)
    model, state = restored(run, task, settings, checkpoint)
    assert task.data.classes is not None
    return Classifier(
        config=config,
        model=model,
        weights=state.evaluated,
        image_shape=tuple(task.data.about["image_shape"]),
        classes=tuple(task.data.classes),
        step=int(state.step),
        note=_unfinished(run, known.get("steps")),
    )


def answering(classifier: Classifier) -> Callable[[Images], Answer]:
    """The function of uint8 images ``[batch, height, width, channels]``: pure, to be jitted or exported.

    Where the run's evaluations average an image's logits and its mirror image's, so does this.
    """
    model = opened(classifier.model, training=False)(*classifier.weights)
    flip = classifier.config.evaluation.flip

    def answer(images: Images) -> Answer:
        logits, solution = answered(model, images, flip=flip)
        return Answer(jax.nn.softmax(logits), solution.residual, solution.iterations)

    return in_precision(classifier.config.precision, answer)


def _described(config: Config, known: dict) -> Task | None:
    """The task of images of this shape and of these classes, of which there are none; None where that is not known."""
    shape, classes = known.get("sample", {}).get("images"), known.get("classes")
    if shape is None or classes is None:
        return None
    none = Examples(np.zeros((0, *shape), np.uint8), np.zeros(0, np.int32))
    return image_task(config, {"test": Dataset(none, tuple(classes), tuple(shape))})


def _unfinished(run: Path, steps: int | None) -> str | None:
    last = max(checkpoints.steps_of(run), default=0)
    if steps is None or last >= steps:
        return None
    return f"{run} is unfinished: it has come to step {last:,} of {steps:,}."
