"""Training steps of the presets for images, lowered for devices that need not exist."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from deq_jax.tasks.images.config import Config, settings_of
from deq_jax.tasks.images.data import Dataset, Examples
from deq_jax.tasks.images.presets import PRESETS
from deq_jax.tasks.images.task import image_task
from deq_jax.training.programs import build_recipe
from deq_jax.training.promises import loss_of
from deq_jax.training.steps.optimizer import build_optimizer
from deq_jax.training.steps.phases import phase_of
from deq_jax.training.steps.solving import in_precision, training_model
from deq_jax.training.steps.step import create_state, make_train_step

STEPS = 25_000
"""Of the whole run: the rate's schedule is all that depends on it."""


@contextlib.contextmanager
def on_a_gpu() -> Iterator[None]:
    """What is traced within takes itself to be on a GPU."""
    with mock.patch.object(jax, "default_backend", return_value="gpu"):
        yield


def train_step(preset: str, batch: int, config: Config | None = None, **jit: Any) -> tuple[Any, tuple]:
    """The step of the preset's last phase, jitted, and the forms of what it takes, or that of a ``config``."""
    config = config or PRESETS[preset]()
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
    step = in_precision(settings.precision, step)
    return jax.jit(step, donate_argnums=0, **jit), jax.eval_shape(lambda *inputs: inputs, state, examples)


def lowered(preset: str, batch: int, mesh: jax.sharding.Mesh, config: Config | None = None) -> Any:
    """The step for a mesh, whose devices share the batch evenly."""
    everywhere, spread = (NamedSharding(mesh, spec) for spec in (P(), P("data")))
    step, forms = train_step(preset, batch, config, out_shardings=everywhere)
    placed = (
        jax.tree.map(functools.partial(_placed, sharding), form)
        for sharding, form in zip((everywhere, spread), forms, strict=True)
    )
    with jax.set_mesh(mesh), on_a_gpu():
        return step.lower(*placed)


def _placed(sharding: NamedSharding, form: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(form.shape, form.dtype, sharding=sharding)
