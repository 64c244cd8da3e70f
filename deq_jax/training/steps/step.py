"""One step of training and one of evaluation: pure functions of arrays, for plain `jax.jit`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

import deq_jax
from deq_jax.training.steps.batches import count
from deq_jax.training.steps.penalty import Penalty, jacobian
from deq_jax.training.task import Examples, Outcome

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
    """The state before the first step. The model may hold parameters and batch statistics, nothing else."""
    _, *arrays = nnx.split(model, nnx.Param, nnx.BatchStat)
    # Copies: a donated state takes its arrays with it, and the model should keep its own.
    params, batch_stats = jax.tree.map(jnp.copy, nnx.as_pure(arrays))
    average = jax.tree.map(jnp.copy, (params, batch_stats)) if keeps_average else ()
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params), average)


def make_train_step(
    model: nnx.Module,
    loss: Callable[[Any, Examples, deq_jax.AdjointReport], Outcome],
    optimizer: optax.GradientTransformation,
    recipe: Recipe = Recipe(),  # noqa: B008
) -> TrainStep:
    """The function (state, examples) -> (state, metrics): one update on the mean loss of a batch.

    The adjoint solve's evaluations and residuals come out as the gradient of `deq_jax.adjoint_report`. Jit it with
    `donate_argnums=0`, so that the update happens in place.
    """
    graph = as_graph(model, training=True)

    def loss_of(
        params: PyTree,
        report: deq_jax.AdjointReport,
        batch_stats: PyTree,
        examples: Examples,
        key: Key[Array, ""],
    ) -> tuple[Float[Array, ""], tuple[Any, ...]]:
        model = nnx.merge(graph, params, batch_stats)
        outcome = loss(model, examples, report)
        total = (outcome.loss if outcome.objective is None else outcome.objective).mean()
        penalty = None
        if recipe.penalty_weight:
            assert outcome.f is not None
            penalty = recipe.penalty(outcome.f, outcome.solution.value, key)
            total += recipe.penalty_weight * penalty
        is_solved = jnp.asarray(outcome.f is not None)
        batch_stats = nnx.as_pure(nnx.state(model, nnx.BatchStat))
        return total, (outcome._replace(f=None), is_solved, penalty, batch_stats)

    def train_step(state: TrainState, examples: Examples) -> tuple[TrainState, TrainMetrics]:
        augment_key, penalty_key = jax.random.split(jax.random.fold_in(jax.random.key(recipe.seed), state.step))
        if recipe.augment is not None:
            examples = recipe.augment(augment_key, examples)
        no_report = deq_jax.adjoint_report(count(examples))
        value_and_grad = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        (total, (outcome, is_solved, penalty, batch_stats)), (grads, report) = value_and_grad(
            state.params, no_report, state.batch_stats, examples, penalty_key
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if recipe.average_decay is not None:
            average = _averaged(average, (params, batch_stats), recipe.average_decay, state.step)
        solution = outcome.solution
        is_measured = jnp.isfinite(report.residual) | (report.status == deq_jax.Status.DIVERGED)
        metrics = TrainMetrics(
            loss=outcome.loss.mean(),
            metrics=jax.tree.map(jnp.mean, outcome.metrics),
            forward_iterations=solution.iterations.astype(jnp.float32).mean(),
            forward_residual=solution.residual.mean(),
            adjoint_iterations=_where(is_solved, report.iterations).mean(),
            adjoint_residual=_where(is_solved, report.residual).mean(),
            forward_converged=_where(is_solved, _is_converged(solution.status)).mean(),
            adjoint_converged=_where(is_solved & is_measured, _is_converged(report.status)).mean(),
            penalty=penalty,
            is_finite=jnp.isfinite(total) & jnp.isfinite(optax.tree.norm(grads)),
        )
        return TrainState(state.step + 1, params, batch_stats, opt_state, average), metrics

    return train_step


def make_eval_step(model: nnx.Module, evaluate: Callable[[Any, Examples], Outcome]) -> EvalStep:
    """The function (params, batch_stats, examples, mask) -> sums over the samples whose mask is True.

    Normalisation uses the running statistics, so a sample's result does not depend on its batch.
    """
    graph = as_graph(model, training=False)

    def eval_step(params: PyTree, batch_stats: PyTree, examples: Examples, mask: Mask) -> EvalSums:
        outcome = evaluate(nnx.merge(graph, params, batch_stats), examples)
        is_solved = jnp.asarray(outcome.f is not None)
        solution = outcome.solution

        def total(values: Array) -> Float[Array, ""]:
            return jnp.where(mask, values.astype(jnp.float32), 0).sum()

        return EvalSums(
            samples=mask.astype(jnp.float32).sum(),
            loss=total(outcome.loss),
            metrics=jax.tree.map(total, outcome.metrics),
            forward_iterations=total(solution.iterations),
            forward_residual=total(solution.residual),
            forward_converged=total(_where(is_solved, _is_converged(solution.status))),
        )

    return eval_step


def as_graph(model: nnx.Module, *, training: bool) -> nnx.GraphDef:
    """The model without its arrays, set to training or to evaluation; the model itself stays as it is."""
    copy = nnx.clone(model)
    copy.train() if training else copy.eval()
    return nnx.split(copy, nnx.Param, nnx.BatchStat)[0]


def _averaged(average: PyTree, values: PyTree, decay: float, step: Int[Array, ""]) -> PyTree:
    """The moving average, its decay at step t at most (1 + t) / (10 + t), so that the first weights are soon forgotten.

    Batch statistics are averaged over the same window as the parameters that they belong to.
    """
    t = step.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + t) / (10 + t))
    return jax.tree.map(lambda mean, value: mean + (1 - kept) * (value - mean), average, values)


def _where(is_solved: Bool[Array, "..."], values: Float[Array, " batch"]) -> Float[Array, " batch"]:
    """What a solve has measured; infinite where there was none, as in a model of ordinary layers alone.

    No NaN, which JAX can be told to take for a fault.
    """
    return jnp.where(is_solved, values, jnp.inf)


def _is_converged(status: Array) -> Float[Array, " batch"]:
    return (status == deq_jax.Status.CONVERGED).astype(jnp.float32)
