"""Training steps of the presets for images, lowered for devices that need not exist."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import numpy as np

from deq_jax.tasks.images.config import settings_of
from deq_jax.tasks.images.data import Dataset, Examples
from deq_jax.tasks.images.presets import PRESETS
from deq_jax.tasks.images.task import image_task
from deq_jax.training.programs import build_recipe
from deq_jax.training.promises import loss_of
from deq_jax.training.steps.optimizer import build_optimizer
from deq_jax.training.steps.phases import phase_of
from deq_jax.training.steps.solving import training_model
from deq_jax.training.steps.step import create_state, make_train_step

STEPS = 25_000
"""Of the whole run: the rate's schedule is all that depends on it."""


@contextlib.contextmanager
def on_a_gpu() -> Iterator[None]:
    """What is traced within takes itself to be on a GPU."""
    with mock.patch.object(jax, "default_backend", return_value="gpu"):
        yield


def train_step(preset: str, batch: int) -> tuple[Any, tuple]:
    """The step of the preset's last phase, jitted, and the forms of what it takes."""
    config = PRESETS[preset]()
    settings, shape = settings_of(config), (32, 32, 3)
    none = Examples(np.zeros((0, *shape), np.uint8), np.zeros(0, np.int32))
    task = image_task(config, {"train": Dataset(none, tuple("0123456789"), shape)})
    phase = phase_of(settings, STEPS - 1, STEPS)
    model, optimizer = training_model(task, settings, phase), build_optimizer(settings.optimizer, STEPS)
    state = create_state(model, optimizer, keeps_average=settings.average_decay is not None)
    step = make_train_step(
        model, loss_of(task, needs_functions=phase.has_penalty), optimizer, build_recipe(task, settings, phase)
    )
    examples = Examples(np.zeros((batch, *shape), np.uint8), np.zeros(batch, np.int32))
    return jax.jit(step, donate_argnums=0), jax.eval_shape(lambda *inputs: inputs, state, examples)


def lowered(preset: str, batch: int, mesh: jax.sharding.Mesh) -> Any:
    """The step for a mesh, of which every device has the whole batch."""
    step, forms = train_step(preset, batch)
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    placed = jax.tree.map(lambda form: jax.ShapeDtypeStruct(form.shape, form.dtype, sharding=whole), forms)
    with on_a_gpu():
        return step.lower(*placed)
