"""Classification of images as a task: its data, its loss and its evaluation, for a run that knows no images."""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Key

from deq_jax import nn
from deq_jax.gradients.adjoint import Adjoint, AdjointReport, Solver
from deq_jax.nn.deq import at_injection
from deq_jax.solution import Solution
from deq_jax.tasks.images.augmentation import augment
from deq_jax.tasks.images.build import Classifier, build_model
from deq_jax.tasks.images.config import Config, settings_of
from deq_jax.tasks.images.data import Dataset, Examples, Images, Labels, load
from deq_jax.training.disk.folder import read_config
from deq_jax.training.errors import UserError
from deq_jax.training.settings.settings import Settings
from deq_jax.training.task import Data, Outcome, Task

CERTIFIED = "certified_accuracy"
"""The share of images that are right and certain to stay so."""

OPENER = __name__
"""Where a run's task can be opened again, as config.json has it."""


def open_task(config: Config, splits: Iterable[str] = ("train", "test")) -> Task:
    """The task that the settings describe, these splits of its data read.

    Raises:
        UserError: the data or the settings do not fit.
    """
    return image_task(config, {split: load(config.data, split, config.data_dir) for split in splits})


def reopened(run: Path) -> tuple[Task, Settings, Config]:
    """The task of a run, with the test split alone, and how it was trained; raises as `open_task` does."""
    config = read_config(run, Config)
    return open_task(config, ["test"]), settings_of(config), config


def image_task(config: Config, splits: Mapping[str, Dataset]) -> Task:
    """The task on data that are there already; raises as `open_task` does."""
    first = next(iter(splits.values()))
    height, width, channels = first.image_shape
    changes, epsilon = config.augmentation, config.evaluation.epsilon
    if changes.shift >= min(height, width):
        raise UserError(f"--augmentation.shift {changes.shift} exceeds images of {height}×{width} pixels.")

    def model(solver: Solver, adjoint: Adjoint, rngs: nnx.Rngs) -> Classifier:
        return build_model(config, (height, width, channels), first.num_classes, solver, adjoint, rngs)

    def changed(key: Key[Array, ""], examples: Examples) -> Examples:
        images = augment(key, examples.images, flip=changes.flip, shift=changes.shift, padding=changes.padding)
        return examples._replace(images=images)

    return Task(
        data=Data(
            {split: dataset.examples for split, dataset in splits.items()},
            name=config.dataset,
            unit="images",
            encoding=first.encoding,
            remedy=_remedy(config),
            classes=first.classes,
            about=_about(splits.values()),
        ),
        model=model,
        loss=functools.partial(classification_loss, smoothing=config.label_smoothing, epsilon=epsilon),
        evaluate=functools.partial(classification, flip=config.evaluation.flip, epsilon=epsilon),
        augment=changed if changes.flip or changes.shift else None,
        metrics={"accuracy": "%"} | ({} if epsilon is None else {CERTIFIED: "%"}),
    )


def _about(splits: Iterable[Dataset]) -> dict[str, Any]:
    """What tells the data from others beside their pixels, and what a model is used with that has learned from them."""
    first, *_ = splits
    files = [dataset.files for dataset in splits if dataset.files is not None]
    about: dict[str, Any] = {"classes": list(first.classes), "image_shape": list(first.image_shape)}
    return about | ({"files": files} if files else {})


def _remedy(config: Config) -> str:
    if config.data.kind_and_place[0] in ("folder", "npz"):
        return f"Give {config.data.source} as it was when the run was started"
    return "Give the --data-dir that it was started with"


def classification_loss(
    model: Classifier,
    examples: Examples,
    report: AdjointReport,
    smoothing: float = 0.0,
    epsilon: float | None = None,
) -> Outcome:
    """Cross-entropy to the labels as they are; training makes that to labels smoothed by `smoothing` small."""
    logits, outcome = _classified(model, examples, report, epsilon)
    if not smoothing:
        return outcome
    return outcome._replace(objective=cross_entropy(logits, examples.labels, smoothing))


def classification(
    model: Classifier, examples: Examples, *, flip: bool = False, epsilon: float | None = None
) -> Outcome:
    """Cross-entropy and accuracy of every image, and with `epsilon` whether it is certain to stay right so far around.

    With `flip` logits are the mean of an image's and its mirror image's, at twice the work; the solve that is reported
    is the image's.
    """
    return judged(model, examples, flip=flip, epsilon=epsilon)[1]


def judged(
    model: Classifier, examples: Examples, *, flip: bool = False, epsilon: float | None = None
) -> tuple[Float[Array, "batch classes"], Outcome]:
    """Logits, and the outcome of `classification`."""
    logits, outcome = _classified(model, examples, epsilon=epsilon)
    if flip:
        logits = _with_mirrored(model, examples.images, logits)
        outcome = outcome._replace(**_judged(logits, examples.labels))
    return logits, outcome


def answered(
    model: Classifier, images: Images, *, flip: bool = False
) -> tuple[Float[Array, "batch classes"], Solution]:
    """Logits of images whose classes nobody knows, and the solve; `flip` as in `classification`."""
    logits, solution = model(scaled(images))
    return (_with_mirrored(model, images, logits) if flip else logits), solution


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Labels, smoothing: float = 0.0
) -> Float[Array, " batch"]:
    """Cross-entropy against labels of which a share `smoothing` is spread evenly over all classes."""
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def scaled(images: Images) -> Float[Array, "batch height width channels"]:
    """Pixels of 0 to 255 as numbers of 0 to 1."""
    return jnp.asarray(images, jnp.float32) / 255


def _with_mirrored(
    model: Classifier, images: Images, logits: Float[Array, "batch classes"]
) -> Float[Array, "batch classes"]:
    """The mean of these logits and those of the mirror images."""
    return (logits + model(scaled(images[:, :, ::-1]))[0]) / 2


def _classified(
    model: Classifier, examples: Examples, report: AdjointReport | None = None, epsilon: float | None = None
) -> tuple[Float[Array, "batch classes"], Outcome]:
    x = model.inject(scaled(examples.images))
    solution = model.solve(x, report=report)
    logits = model.classify(solution.value)
    f = None if model.cell is None else at_injection(model.cell, x)
    outcome = Outcome(solution=solution, f=f, **_judged(logits, examples.labels))
    if epsilon is not None:
        assert isinstance(model, nn.ImageClassifier)  # the settings allow no other
        is_certain = nn.certified_radius(model, logits, solution) >= epsilon
        outcome = outcome._replace(metrics={**outcome.metrics, CERTIFIED: outcome.metrics["accuracy"] * is_certain})
    return logits, outcome


def _judged(logits: Float[Array, "batch classes"], labels: Labels) -> dict:
    """The fields of an outcome that are a matter of the logits alone."""
    hits = (logits.argmax(-1) == labels).astype(jnp.float32)
    return {"loss": cross_entropy(logits, labels), "metrics": {"accuracy": hits}}
