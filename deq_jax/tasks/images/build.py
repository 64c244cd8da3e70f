"""Settings become models: the one place where words turn into classifiers."""

import functools
import math
from collections.abc import Callable
from typing import Any

from flax import nnx

from deq_jax import nn
from deq_jax.gradients.adjoint import Adjoint, Solver
from deq_jax.nn.classifiers.image_classifier import Body
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
    try:
        return _maker(config.model)(
            config.model,
            image_shape,
            num_classes,
            solver=solver or build_solver(config.solver),
            adjoint=adjoint or build_adjoint(config.adjoint, config.solver),
            rngs=rngs or nnx.Rngs(config.seed),
        )
    except ValueError as error:
        raise UserError(f"the model does not fit {config.dataset}: {error}") from error


def _maker(of: ModelConfig) -> Callable[..., Classifier]:
    if of.kind == "chapter":
        return _chapter
    if of.cell == "multiscale":
        return _multiscale
    return _monotone if of.is_monotone else _staged


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
        **_stages(config),
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
    body = _body(config, cell, solver, adjoint)
    return nn.ImageClassifier(stem, body, nn.Head(stem.out_shape, num_classes, pool=config.pool, rngs=rngs))


def _monotone(
    config: ModelConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    solver: Solver,
    adjoint: Adjoint,
    rngs: nnx.Rngs,
) -> nn.ImageClassifier:
    """A monotone equilibrium, or layers of its cells, between linear maps."""
    is_flat = config.cell == "dense-monotone"
    stem = nn.Standardised(image_shape, config.mean, config.deviation, is_flat=is_flat)
    shared: dict[str, Any] = {"m": config.m, "rngs": rngs}
    cell: Callable[[], Any]
    if is_flat:
        cell = functools.partial(nn.DenseMonotoneCell, math.prod(image_shape), config.channels, **shared)
    elif config.cell == "conv-monotone":
        cell = functools.partial(
            nn.ConvMonotoneCell, image_shape, config.channels, kernel_size=config.kernel_size, **shared
        )
    else:
        cell = functools.partial(
            nn.TiersMonotoneCell, image_shape, config.tiers, kernel_size=config.kernel_size, **shared
        )
    body = _body(config, cell, solver, adjoint)
    border = 0 if is_flat else config.kernel_size // 2
    pool = None if is_flat else config.pool
    head = nn.LinearHead(_first(body).state_shape, num_classes, pool=pool, border=border, rngs=rngs)
    return nn.ImageClassifier(stem, body, head)


def _multiscale(
    config: ModelConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    solver: Solver,
    adjoint: Adjoint,
    rngs: nnx.Rngs,
) -> nn.ImageClassifier:
    """An equilibrium of several resolutions, or layers of its cells."""
    tiers = config.tiers
    stem = nn.MultiscaleStem(
        image_shape,
        tiers,
        **_stages(config),
        mean=config.mean,
        deviation=config.deviation,
        dropout=config.dropout,
        rngs=rngs,
    )
    cell = functools.partial(
        nn.MultiscaleCell,
        tiers,
        expansion=config.expansion,
        num_groups=config.num_groups,
        kernel_size=config.kernel_size,
        rngs=rngs,
    )
    body = _body(config, cell, solver, adjoint)
    _first(body).sizes(*stem.out_shape[:2])
    head = nn.MultiscaleHead(tiers, num_classes, bottlenecks=config.bottlenecks, features=config.features, rngs=rngs)
    return nn.ImageClassifier(stem, body, head)


def _stages(config: ModelConfig) -> dict[str, Any]:
    """What a stem does before its last layer."""
    return {
        "stages": [nn.Stage(*stage) for stage in zip(config.stem, config.stem_factors, strict=True)],
        "pool": {"average": nn.average_pool, "max": nn.max_pool, "stride": None}[config.downsampling],
    }


def _first(body: Body) -> Any:
    """The cell, or the first of several."""
    return body.cells[0] if isinstance(body, nn.Layers) else body.cell


def _body(config: ModelConfig, cell: Callable[[], Any], solver: Solver, adjoint: Adjoint) -> Body:
    """The equilibrium, or what stands in its place."""
    if config.kind == "deq":
        return nn.DEQ(cell(), solver=solver, adjoint=adjoint)
    if config.kind == "tied":
        return nn.DEQ(cell(), unroll=config.layers)
    return nn.Layers([cell() for _ in range(config.layers)])
