from pathlib import Path

import pytest

from deq_jax import nn
from deq_jax.tasks.images.build import build_model
from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.groups import DataConfig, ModelConfig


@pytest.mark.parametrize(
    ("name", "cell"),
    [("resnet", nn.ResNetCell), ("pre-activation", nn.PreActivationCell), ("injection", nn.InjectionCell)],
)
def test_a_cell_is_the_one_of_that_name(name, cell):
    model = ModelConfig(kind="deq", channels=8, inner_channels=16, pool=4, cell=name)
    assert type(build_model(Config(DataConfig("digits"), Path("x"), model=model), (8, 8, 1), 10).cell) is cell
