"""One step of training and one of evaluation: pure functions of arrays, for plain `jax.jit`."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

import deq_jax
from deq_jax.training.steps.accumulation import in_parts
from deq_jax.training.steps.batches import count
from deq_jax.training.steps.model import arrays_of, opened
from deq_jax.training.steps.penalty import Penalty, jacobian, penalised
from deq_jax.training.steps.solved import backward, forward
from deq_jax.training.task import Examples, Outcome, each

Mask = Bool[Array | np.ndarray, " batch"]


class Recipe(NamedTuple):
    """What a training step does beside one plain gradient step on the mean loss."""

    seed: int = 0
    """Settles, with the number of the step, all that is random in it."""
    augment: Callable[[Key[Array, ""], Examples], Examples] | None = None
    penalty_weight: float = 0.0
    """Weight of the penalty in the loss; 0: it is not computed."""
    penalty: Penalty = jacobian
    """What is penalised, at the equilibrium of every sample."""
    average_decay: float | None = None
    """Share of the moving average of weights that is kept."""
    equilibria: int = 1
    """Layers that solve."""
    micro_batches: int = 1
    """Parts that the batch is cut into; see `in_parts`."""
    skips_non_finite: bool = False
    """A step whose loss or gradient is not finite leaves all but the number of the step as it was."""


class TrainState(NamedTuple):
    """All that a run carries from step to step, and all that a checkpoint holds."""

    step: Int[Array, ""]
    """Steps taken."""
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    average: PyTree = ()
    """Moving averages of `params` and `batch_stats`; empty where none are kept."""

    @property
    def evaluated(self) -> tuple[PyTree, PyTree]:
        """The parameters and batch statistics to evaluate: the averages where there are any."""
        return self.average or (self.params, self.batch_stats)


class TrainMetrics(NamedTuple):
    """Means over the batch of one training step, measured before its update."""

    loss: Float[Array, ""]
    """The task's, as in an evaluation: without the penalty."""
    metrics: dict[str, Float[Array, ""]]
    """The task's own."""
    forward_iterations: Float[Array, ""]
    forward_residual: Float[Array, ""]
    adjoint_iterations: Float[Array, ""]
    adjoint_residual: Float[Array, ""]
    forward_converged: Float[Array, ""]
    """Share of the samples whose forward solve reached its tolerance; infinite where there is no equilibrium."""
    adjoint_converged: Float[Array, ""]
    """Share of the samples whose adjoint solve reached its own; infinite where none is made to a tolerance."""
    penalty: Float[Array, ""] | None
    """The penalty, unweighted; None in steps without it."""
    is_finite: Bool[Array, ""]
    """The loss and every gradient are."""


class EvalSums(NamedTuple):
    """Sums over the samples of a batch that count; divided by the sum of `samples` they are means over a data set."""

    samples: Float[Array, ""]
    loss: Float[Array, ""]
    metrics: dict[str, Float[Array, ""]]
    """The task's own."""
    forward_iterations: Float[Array, ""]
    forward_residual: Float[Array, ""]
    forward_converged: Float[Array, ""]


TrainStep = Callable[[TrainState, Examples], tuple[TrainState, TrainMetrics]]
EvalStep = Callable[[PyTree, PyTree, Examples, Mask], EvalSums]


def create_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, *, keeps_average: bool = False
) -> TrainState:
    """The state before the first step: the model's parameters and batch statistics. What else it holds is constant."""
    # Copies: a donated state takes its arrays with it, and the model should keep its own.
    params, batch_stats = jax.tree.map(jnp.copy, arrays_of(model))
    average = jax.tree.map(jnp.copy, (params, batch_stats)) if keeps_average else ()
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params), average)


def make_train_step(
    model: nnx.Module,
    loss: Callable[[Any, Examples, Any], Outcome],
    optimizer: optax.GradientTransformation,
    recipe: Recipe = Recipe(),  # noqa: B008
) -> TrainStep:
    """The function (state, examples) -> (state, metrics): one update on the mean loss of a batch.

    The adjoint solve's evaluations and residuals come out as the gradient of `deq_jax.adjoint_report`. Jit it with
    `donate_argnums=0`, so that the update happens in place.
    """
    with_arrays = opened(model, training=True)

    def loss_of(
        params: PyTree,
        report: Any,
        batch_stats: PyTree,
        examples: Examples,
        draw: Int[Array, ""],
        key: Key[Array, ""],
    ) -> tuple[Float[Array, ""], tuple[Any, ...]]:
        model = with_arrays(params, batch_stats, draw)
        outcome = loss(model, examples, report)
        total = (outcome.loss if outcome.objective is None else outcome.objective).mean()
        penalty = None
        if recipe.penalty_weight:
            penalty = penalised(recipe.penalty, outcome, key)
            total += recipe.penalty_weight * penalty
        batch_stats = nnx.as_pure(nnx.state(model, nnx.BatchStat))
        return total, (outcome._replace(f=None), penalty, batch_stats)

    def differentiated(
        params: PyTree, batch_stats: PyTree, examples: Examples, draw: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[PyTree, PyTree, TrainMetrics]:
        """The gradient of the mean loss, the batch statistics after it, and what was measured."""
        batch = count(examples)
        no_report = each(recipe.equilibria, lambda: deq_jax.adjoint_report(batch))
        value_and_grad = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        (total, (outcome, penalty, batch_stats)), (grads, report) = value_and_grad(
            params, no_report, batch_stats, examples, draw, key
        )
        solved = forward(outcome.solutions, batch)
        adjoint = backward((report,) if recipe.equilibria == 1 else report, batch)
        metrics = TrainMetrics(
            loss=outcome.loss.mean(),
            metrics=jax.tree.map(jnp.mean, outcome.metrics),
            forward_iterations=solved.iterations.mean(),
            forward_residual=solved.residual.mean(),
            adjoint_iterations=adjoint.iterations.mean(),
            adjoint_residual=adjoint.residual.mean(),
            forward_converged=solved.converged.mean(),
            adjoint_converged=adjoint.converged.mean(),
            penalty=penalty,
            is_finite=jnp.isfinite(total),
        )
        return grads, batch_stats, metrics

    def train_step(state: TrainState, examples: Examples) -> tuple[TrainState, TrainMetrics]:
        augment_key, penalty_key = jax.random.split(jax.random.fold_in(jax.random.key(recipe.seed), state.step))
        if recipe.augment is not None:
            examples = recipe.augment(augment_key, examples)
        grads, batch_stats, metrics = in_parts(differentiated, recipe.micro_batches)(
            state.params, state.batch_stats, examples, state.step, penalty_key
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if recipe.average_decay is not None:
            average = _averaged(average, (params, batch_stats), recipe.average_decay, state.step)
        is_finite = metrics.is_finite & jnp.isfinite(optax.tree.norm(grads))
        after = TrainState(state.step + 1, params, batch_stats, opt_state, average)
        if recipe.skips_non_finite:
            kept = jax.tree.map(functools.partial(jnp.where, is_finite), after, state)
            after = kept._replace(step=after.step)
        return after, metrics._replace(is_finite=is_finite)

    return train_step


def make_eval_step(model: nnx.Module, evaluate: Callable[[Any, Examples], Outcome]) -> EvalStep:
    """The function (params, batch_stats, examples, mask) -> sums over the samples whose mask is True.

    Normalisation uses the running statistics, so a sample's result does not depend on its batch.
    """
    with_arrays = opened(model, training=False)

    def eval_step(params: PyTree, batch_stats: PyTree, examples: Examples, mask: Mask) -> EvalSums:
        outcome = evaluate(with_arrays(params, batch_stats), examples)
        solved = forward(outcome.solutions, count(examples))

        def total(values: Array) -> Float[Array, ""]:
            return jnp.where(mask, values.astype(jnp.float32), 0).sum()

        return EvalSums(
            samples=mask.astype(jnp.float32).sum(),
            loss=total(outcome.loss),
            metrics=jax.tree.map(total, outcome.metrics),
            forward_iterations=total(solved.iterations),
            forward_residual=total(solved.residual),
            forward_converged=total(solved.converged),
        )

    return eval_step


def _averaged(average: PyTree, values: PyTree, decay: float, step: Int[Array, ""]) -> PyTree:
    """The moving average, its decay at step t at most (1 + t) / (10 + t), so that the first weights are soon forgotten.

    Batch statistics are averaged over the same window as the parameters that they belong to.
    """
    t = step.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + t) / (10 + t))
    return jax.tree.map(lambda mean, value: mean + (1 - kept) * (value - mean), average, values)
