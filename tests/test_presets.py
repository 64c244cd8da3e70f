import jax
import pytest
from flax import nnx

from deq_jax.tasks.images.build import build_model
from deq_jax.tasks.images.presets import PRESETS


def parameters(name):
    config = PRESETS[name]()
    shape = (8, 8, 1) if config.dataset == "digits" else (32, 32, 3)
    model = nnx.eval_shape(lambda: build_model(config, shape, 10))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize("name", ["cifar10-fast", "cifar10-fast-explicit", "cifar10"])
def test_a_preset_stays_within_its_parameters(name):
    assert 60_000 < parameters(name) <= 200_000


def test_the_tutorial_is_the_chapters_size():
    assert parameters("cifar10-tutorial") == 64_842


def test_the_explicit_counterpart_has_as_many_parameters_and_a_few_more():
    assert 1 <= parameters("cifar10-fast-explicit") / parameters("cifar10-fast") < 1.05
