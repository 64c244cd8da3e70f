"""Settings become solvers, adjoints, and models that use them: the one place where words turn into code."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import deq_jax
from deq_jax.gradients.adjoint import Adjoint, Solver
from deq_jax.training.errors import UserError
from deq_jax.training.settings.precision import PRODUCTS, Precision, Rounding, residual_floor
from deq_jax.training.settings.settings import Settings
from deq_jax.training.settings.solves import AdjointConfig, AdjointKind, SolverConfig, filled_from
from deq_jax.training.steps.phases import Phase
from deq_jax.training.task import Task


def build_solver(config: SolverConfig) -> Solver:
    """The solver (f, z0) -> Solution that the settings describe."""
    bounds: dict[str, Any] = {"tol": config.tol, "atol": config.atol, "max_iter": config.max_iter}
    if config.method == "forward-iteration":
        return functools.partial(deq_jax.forward_iteration, damping=config.beta, **bounds)
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
    """The task's model, its weights drawn from the run's seed, solved, or unrolled, as in a phase of the run.

    Raises:
        UserError: there is nothing to unroll.
    """
    solver = dataclasses.replace(settings.solver, max_iter=phase.max_iter)
    adjoint = build_adjoint(settings.adjoint, settings.solver, phase.adjoint_kind)
    model = _model(task, build_solver(solver), adjoint, settings)
    layers = layers_that_solve(model)
    if phase.unroll and not layers:
        raise UserError(
            f"early.unroll is {phase.unroll}, for the layers nn.DEQ of the model, but it has none.\nLeave it out."
        )
    for layer in layers if phase.unroll else ():
        layer.unroll = phase.unroll
    return model


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


def layers_that_solve(model: nnx.Module) -> list[Any]:
    """The model's `nn.DEQ`s."""
    return [layer for _, layer in nnx.iter_modules(model) if hasattr(layer, "per_sample")]


def set_dtype(model: nnx.Module, precision: Precision) -> None:
    """Makes the layers that solve evaluate their cells in that dtype.

    Raises:
        UserError: there is none, or its cell has no bits to spare.
    """
    if precision != "bfloat16":
        return
    layers = layers_that_solve(model)
    if not layers:
        raise UserError(
            "precision is bfloat16, in which nn.DEQ evaluates its cell, but the model has none.\n"
            "Cast within the model where it may be so, or give another precision: float32, tf32 or default."
        )
    for layer in layers:
        if hasattr(layer.cell, "monotone_map"):
            raise UserError(
                "precision is bfloat16, but the cell is monotone, and its linear systems need all bits.\n"
                "Give another precision: float32, tf32 or default."
            )
        layer.dtype = jnp.bfloat16


def in_precision[F: Callable[..., Any]](precision: Precision, function: F) -> F:
    """``function``, to be compiled with products of float32 as the settings say."""
    products = PRODUCTS[precision]
    if products is None:
        return function

    @functools.wraps(function)
    def precise(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision(products):
            return function(*args, **kwargs)

    return precise  # type: ignore[return-value]


def rounding_of(precision: Precision, platform: str) -> Rounding:
    """The fewest bits that a cell's evaluation goes through on devices of a platform, ``cpu``, ``gpu`` or ``tpu``."""
    if precision in ("float32", "bfloat16"):
        return precision
    said = jax.config.jax_default_matmul_precision
    if platform == "cpu" or (precision == "default" and said in ("highest", "float32")):
        return "float32"
    if platform == "tpu":
        return "bfloat16" if precision == "default" else "float32"  # tf32 is there three products of bfloat16
    return "tf32"


def unreachable(settings: Settings, platform: str) -> Iterator[str]:
    """A line for each tolerance that the bits cannot be relied on to resolve, with the least that they can."""
    rounding = rounding_of(settings.precision, platform)
    floor = residual_floor(rounding)
    tolerances = {"solver.tol": settings.solver.tol, "evaluation.tol": settings.evaluation.tol}
    if settings.adjoint.kind == "implicit":
        tolerances["adjoint.tol"] = filled_from(settings.adjoint, settings.solver).tol
    for name, tol in tolerances.items():
        if tol is not None and tol < floor:
            finer = "" if rounding == "float32" else ", or take precision float32"
            yield (
                f"note: {name} {tol:g} is below {floor:.1e}, the least residual that a cell evaluated in {rounding} is "
                f"sure to resolve: such solves may spend all of max_iter. Raise it{finer}."
            )
