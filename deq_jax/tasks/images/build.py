"""Settings become functions and models: the one place where words turn into code."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from flax import nnx

import deq_jax
from deq_jax import nn
from deq_jax.adjoint import Adjoint, Solver
from deq_jax.tasks.images.augmentation import augment
from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.groups import ModelConfig
from deq_jax.training.errors import UserError
from deq_jax.training.settings.solves import AdjointKind, SolverConfig, filled_from
from deq_jax.training.steps import penalty
from deq_jax.training.steps.phases import Phase
from deq_jax.training.steps.step import Classifier, Recipe


def build_solver(config: SolverConfig) -> Solver:
    """The solver (f, z0) -> Solution that the settings describe."""
    if config.method == "forward-iteration":
        return functools.partial(deq_jax.forward_iteration, tol=config.tol, max_iter=config.max_iter)
    if config.method == "broyden":
        return functools.partial(deq_jax.broyden, m=config.m, tol=config.tol, max_iter=config.max_iter)
    return functools.partial(
        deq_jax.anderson, m=config.m, lam=config.lam, beta=config.beta, tol=config.tol, max_iter=config.max_iter
    )


def build_adjoint(config: Config, kind: AdjointKind) -> Adjoint:
    """How the adjoint equation is met."""
    if kind == "phantom":
        return deq_jax.phantom(config.adjoint.steps, config.adjoint.damping)
    if kind == "jacobian-free":
        return deq_jax.jacobian_free()
    return deq_jax.implicit(build_solver(filled_from(config.adjoint, config.solver)))


def for_evaluation(config: Config) -> Config:
    """The configuration with the evaluation's own settings of the solve."""
    return dataclasses.replace(config, solver=filled_from(config.evaluation, config.solver))


def build_model(
    config: Config, image_shape: tuple[int, int, int], num_classes: int, phase: Phase | None = None
) -> Classifier:
    """The classifier, its weights drawn from the run's seed, solved as the settings say, or in a phase of the run.

    Raises:
        UserError: the settings do not fit images of `image_shape`.
    """
    solver, kind = config.solver, config.adjoint.kind
    if phase is not None:
        solver, kind = dataclasses.replace(solver, max_iter=phase.max_iter), phase.adjoint_kind
    make = _chapter if config.model.kind == "chapter" else _staged
    try:
        return make(
            config.model,
            image_shape,
            num_classes,
            solver=build_solver(solver),
            adjoint=build_adjoint(config, kind),
            rngs=nnx.Rngs(config.seed),
        )
    except ValueError as error:
        raise UserError(f"the model does not fit {config.dataset}: {error}") from error


def build_recipe(config: Config, phase: Phase | None = None) -> Recipe:
    """What a training step does beside the plain gradient step."""
    weight = config.penalty.weight if phase is None or phase.has_penalty else 0.0
    images = config.augmentation
    changes = functools.partial(augment, flip=images.flip, shift=images.shift, padding=images.padding)
    return Recipe(
        seed=config.seed,
        augment=changes if images.flip or images.shift else None,
        label_smoothing=config.label_smoothing,
        penalty_weight=weight,
        penalty={"jacobian": penalty.jacobian, "contraction": penalty.contraction}[config.penalty.kind],
        average_decay=config.average_decay,
    )


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
