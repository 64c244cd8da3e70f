"""Settings become functions and models: the one place where words turn into code."""

import functools

import optax
from flax import nnx

import deq_jax
from deq_jax import nn
from deq_jax.adjoint import Solver
from deq_jax.training.config import Config, OptimizerConfig, SolverConfig
from deq_jax.training.errors import UserError


def build_solver(config: SolverConfig) -> Solver:
    """The solver (f, z0) -> Solution that the settings describe."""
    if config.method == "forward-iteration":
        return functools.partial(deq_jax.forward_iteration, tol=config.tol, max_iter=config.max_iter)
    if config.method == "broyden":
        return functools.partial(deq_jax.broyden, m=config.m, tol=config.tol, max_iter=config.max_iter)
    return functools.partial(
        deq_jax.anderson, m=config.m, lam=config.lam, beta=config.beta, tol=config.tol, max_iter=config.max_iter
    )


def build_model(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> nnx.Module:
    """The classifier, its weights drawn from the run's seed.

    Raises:
        UserError: the settings do not fit images of `image_shape`.
    """
    try:
        return nn.DEQClassifier(
            image_shape=image_shape,
            num_classes=num_classes,
            channels=config.model.channels,
            inner_channels=config.model.inner_channels,
            num_groups=config.model.num_groups,
            kernel_size=config.model.kernel_size,
            pool=config.model.pool,
            solver=build_solver(config.solver),
            adjoint=deq_jax.implicit(build_solver(config.adjoint.filled_from(config.solver))),
            rngs=nnx.Rngs(config.seed),
        )
    except ValueError as error:
        raise UserError(f"the model does not fit {config.dataset}: {error}") from error


def build_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Adam whose rate falls along a half cosine, step t of T taken at final + (first − final) · (1 + cos πt/T) / 2.

    PyTorch's CosineAnnealingLR with T_max = T, stepped after every batch.
    """
    first, final = config.learning_rate, config.final_learning_rate
    return optax.adam(optax.cosine_decay_schedule(first, total_steps, alpha=final / first))
