"""Settings become solvers, adjoints, and models that use them: the one place where words turn into code."""

import dataclasses
import functools
from typing import Any

from flax import nnx

import deq_jax
from deq_jax.adjoint import Adjoint, Solver
from deq_jax.training.errors import UserError
from deq_jax.training.settings.settings import Settings
from deq_jax.training.settings.solves import AdjointConfig, AdjointKind, SolverConfig, filled_from
from deq_jax.training.steps.phases import Phase
from deq_jax.training.steps.precision import layers_that_solve, set_dtype
from deq_jax.training.task import Task


def build_solver(config: SolverConfig) -> Solver:
    """The solver (f, z0) -> Solution that the settings describe."""
    bounds: dict[str, Any] = {"tol": config.tol, "atol": config.atol, "max_iter": config.max_iter}
    if config.method == "forward-iteration":
        return functools.partial(deq_jax.forward_iteration, **bounds)
    if config.method == "peaceman-rachford":
        return functools.partial(deq_jax.peaceman_rachford, alpha=config.alpha, **bounds)
    if config.method == "forward-backward":
        return functools.partial(deq_jax.forward_backward, alpha=config.alpha, **bounds)
    if config.method == "broyden":
        return functools.partial(deq_jax.broyden, m=config.m, **bounds)
    return functools.partial(deq_jax.anderson, m=config.m, lam=config.lam, beta=config.beta, **bounds)


def build_adjoint(config: AdjointConfig, solver: SolverConfig, kind: AdjointKind | None = None) -> Adjoint:
    """How the adjoint equation is met, beside a forward solve of these settings; `kind` goes before the settings'."""
    kind = config.kind if kind is None else kind
    if kind == "jacobian-free":
        return deq_jax.jacobian_free()
    if kind == "phantom":
        adjoint = deq_jax.phantom(config.steps, config.damping)
    else:
        adjoint = deq_jax.implicit(build_solver(filled_from(config, solver)))
    return deq_jax.recomputed(adjoint) if config.recompute else adjoint


def training_model(task: Task, settings: Settings, phase: Phase) -> nnx.Module:
    """The task's model, its weights drawn from the run's seed, solved as in a phase of the run."""
    solver = dataclasses.replace(settings.solver, max_iter=phase.max_iter)
    adjoint = build_adjoint(settings.adjoint, settings.solver, phase.adjoint_kind)
    return _model(task, build_solver(solver), adjoint, settings)


def evaluation_model(task: Task, settings: Settings, devices: int = 1) -> nnx.Module:
    """The task's model, its weights drawn from the run's seed, solved as in an evaluation.

    Of a batch, which may be longer than in training, as many samples at a time as in training.
    """
    solver = filled_from(settings.evaluation, settings.solver)
    model = _model(task, build_solver(solver), build_adjoint(settings.adjoint, solver), settings)
    for layer in layers_that_solve(model):
        if layer.per_sample and layer.width is None:
            layer.width = settings.batch_size // (devices * settings.micro_batches)
    return model


def _model(task: Task, solver: Solver, adjoint: Adjoint, settings: Settings) -> nnx.Module:
    model = task.model(solver, adjoint, nnx.Rngs(settings.seed))
    if not isinstance(model, nnx.Module):
        raise UserError(
            f"task.model returned a {type(model).__name__}; expected a function (solver, adjoint, rngs) → a fresh Flax "
            f"NNX module, such as the module's class."
        )
    set_dtype(model, settings.precision)
    return model
