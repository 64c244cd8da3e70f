import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from deq_jax.tasks.images.build import build_model
from deq_jax.tasks.images.presets import PRESETS


def parameters(preset):
    config = PRESETS[preset]() if isinstance(preset, str) else preset
    shape = {"digits": (8, 8, 1), "images": (64, 64, 3)}.get(config.dataset, (32, 32, 3))
    model = nnx.eval_shape(lambda: build_model(config, shape, 10))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize("name", ["cifar10-fast", "cifar10-fast-explicit", "cifar10", "images"])
def test_a_preset_stays_within_its_parameters(name):
    assert 60_000 < parameters(name) <= 200_000


def test_the_tutorial_is_the_chapters_size():
    assert parameters("cifar10-tutorial") == 64_842


def test_monotone_models_are_their_authors_size():
    assert parameters("monotone-cifar10") == 172_218
    preset = PRESETS["monotone-cifar10"]()
    tiers = dataclasses.replace(preset.model, cell="tiers-monotone", tiers=(16, 32, 60), pool=None)
    assert parameters(dataclasses.replace(preset, model=tiers)) == 170_194


def test_the_explicit_counterpart_has_as_many_parameters_and_a_few_more():
    assert 1 <= parameters("cifar10-fast-explicit") / parameters("cifar10-fast") < 1.05


@pytest.mark.parametrize("size", [(1, 1, 1), (28, 28, 1), (45, 77, 3), (224, 224, 3)])
def test_images_of_any_size_suit_the_preset_for_them(size):
    logits = nnx.eval_shape(lambda: build_model(PRESETS["images"](), size, 3)(jnp.zeros((2, *size)))[0])
    assert logits.shape == (2, 3)
