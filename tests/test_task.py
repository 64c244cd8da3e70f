"""The classification of images, as a run sees it."""

import dataclasses

import jax
import numpy as np
import pytest

import deq_jax
from deq_jax.tasks.images.config import settings_of
from deq_jax.tasks.images.data import load
from deq_jax.tasks.images.groups import AugmentationConfig, EvaluationConfig
from deq_jax.tasks.images.task import cross_entropy, image_task, open_task, scaled
from deq_jax.training.errors import UserError
from deq_jax.training.steps.batches import taken
from deq_jax.training.steps.solving import evaluation_model
from tests.runs import tiny


def test_label_smoothing_is_the_cross_entropy_to_smoothed_labels():
    logits, labels = jax.random.normal(jax.random.key(0), (5, 10)), np.arange(5)
    plain, half, whole = (cross_entropy(logits, labels, smoothing) for smoothing in (0.0, 0.5, 1.0))
    logs = np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(plain, -logs[np.arange(5), labels], rtol=1e-5)
    np.testing.assert_allclose(whole, -logs.mean(1), rtol=1e-5)
    np.testing.assert_allclose(half, (plain + whole) / 2, rtol=1e-5)


def test_pixels_become_numbers_of_zero_to_one():
    np.testing.assert_allclose(scaled(np.array([[[[0], [51], [255]]]], np.uint8)).ravel(), [0, 0.2, 1], rtol=1e-6)


def test_only_the_splits_asked_for_are_read(tmp_path):
    task = open_task(tiny(tmp_path), ["test"])
    assert task.data.splits.keys() == {"test"}
    assert (task.data.name, task.data.unit, len(task.data.splits["test"].labels)) == ("digits", "images", 360)


def test_images_are_changed_in_training_where_the_settings_say_so_and_labels_never(tmp_path):
    splits = {"test": load("digits", "test")}
    assert image_task(tiny(tmp_path), splits).augment is None
    task = image_task(tiny(tmp_path, augmentation=AugmentationConfig(flip=True)), splits)
    examples = splits["test"].examples
    changed = task.augment(jax.random.key(0), examples)
    np.testing.assert_array_equal(changed.labels, examples.labels)
    assert 0.3 < np.mean((changed.images != examples.images).any((1, 2, 3))) < 0.7  # one in two, of 360


def test_what_is_minimised_and_what_is_reported(tmp_path):
    """Smoothing changes the first, averaging over a flip the second; the loss is that of the labels as they are."""
    splits = {"test": load("digits", "test")}
    config = tiny(tmp_path, label_smoothing=0.5, evaluation=EvaluationConfig(flip=True))
    smoothed, plain = image_task(config, splits), image_task(tiny(tmp_path), splits)
    model = evaluation_model(smoothed, settings_of(config))
    model.eval()
    batch, report = taken(splits["test"].examples, slice(8)), deq_jax.adjoint_report(8)
    one, other = smoothed.loss(model, batch, report), plain.loss(model, batch, report)
    assert other.objective is None
    np.testing.assert_array_equal(one.loss, other.loss)
    assert not np.allclose(one.objective, one.loss)
    assert not np.allclose(smoothed.evaluate(model, batch).loss, plain.evaluate(model, batch).loss, rtol=1e-6)
    # An equilibrium: f moves it no further than the solve's own residual says.
    z = other.solution.value
    fz = other.f(z)
    residual = np.sqrt(((fz - z) ** 2).sum((1, 2, 3)) / (fz**2).sum((1, 2, 3)))
    # The same numbers, from a convolution that may be compiled otherwise.
    np.testing.assert_allclose(residual, other.solution.residual, rtol=1e-2)


def test_a_model_of_ordinary_layers_has_no_cell(tmp_path):
    config = tiny(tmp_path)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, kind="explicit"))
    task = image_task(config, {"test": load("digits", "test")})
    batch = taken(task.data.splits["test"], slice(2))
    assert task.loss(evaluation_model(task, settings_of(config)), batch, deq_jax.adjoint_report(2)).f is None


def test_a_shift_beyond_the_image_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"--augmentation\.shift 8 exceeds images of 8×8 pixels"):
        open_task(tiny(tmp_path, augmentation=AugmentationConfig(shift=8)))
