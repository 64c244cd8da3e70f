"""Settings become models: the one place where words turn into classifiers."""

import functools
from collections.abc import Callable
from typing import Any

from flax import nnx

from deq_jax import nn
from deq_jax.adjoint import Adjoint, Solver
from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.groups import ModelConfig
from deq_jax.training.errors import UserError
from deq_jax.training.steps.solving import build_adjoint, build_solver

Classifier = nn.DEQClassifier | nn.ImageClassifier


def build_model(
    config: Config,
    image_shape: tuple[int, int, int],
    num_classes: int,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    rngs: nnx.Rngs | None = None,
) -> Classifier:
    """The classifier; solved as the settings say and drawn from the run's seed where nothing else is given.

    Raises:
        UserError: the settings do not fit images of `image_shape`.
    """
    make = _chapter if config.model.kind == "chapter" else _staged
    try:
        return make(
            config.model,
            image_shape,
            num_classes,
            solver=solver or build_solver(config.solver),
            adjoint=adjoint or build_adjoint(config.adjoint, config.solver),
            rngs=rngs or nnx.Rngs(config.seed),
        )
    except ValueError as error:
        raise UserError(f"the model does not fit {config.dataset}: {error}") from error


def _chapter(
    config: ModelConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    solver: Solver,
    adjoint: Adjoint,
    rngs: nnx.Rngs,
) -> nn.DEQClassifier:
    assert config.pool is not None
    return nn.DEQClassifier(
        image_shape=image_shape,
        num_classes=num_classes,
        channels=config.channels,
        inner_channels=config.inner_channels,
        num_groups=config.num_groups,
        kernel_size=config.kernel_size,
        pool=config.pool,
        solver=solver,
        adjoint=adjoint,
        rngs=rngs,
    )


def _staged(
    config: ModelConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    solver: Solver,
    adjoint: Adjoint,
    rngs: nnx.Rngs,
) -> nn.ImageClassifier:
    """The equilibrium or the ordinary layers between a stem and a head."""
    stem = nn.Stem(
        image_shape,
        config.channels,
        stages=[nn.Stage(*stage) for stage in zip(config.stem, config.stem_factors, strict=True)],
        pool={"average": nn.average_pool, "max": nn.max_pool, "stride": None}[config.downsampling],
        kernel_size=config.kernel_size,
        rngs=rngs,
    )
    cells: dict[str, Callable[..., Any]] = {
        "resnet": nn.ResNetCell,
        "pre-activation": nn.PreActivationCell,
        "injection": nn.InjectionCell,
    }
    cell = functools.partial(
        cells[config.cell],
        config.channels,
        config.inner_channels,
        num_groups=config.num_groups,
        kernel_size=config.kernel_size,
        max_gain=config.max_gain,
        rngs=rngs,
    )
    body: nn.DEQ | nn.Layers
    if config.kind == "deq":
        body = nn.DEQ(cell(), solver=solver, adjoint=adjoint)
    else:
        body = nn.Layers([cell() for _ in range(config.layers)])
    return nn.ImageClassifier(stem, body, nn.Head(stem.out_shape, num_classes, pool=config.pool, rngs=rngs))
