"""One step of training and one of evaluation: pure functions of arrays, for plain `jax.jit`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt8

import deq_jax
from deq_jax.nn import DEQClassifier, ImageClassifier
from deq_jax.nn.deq import prepared
from deq_jax.training.steps.penalty import Penalty, jacobian

Classifier = DEQClassifier | ImageClassifier
Images = UInt8[Array | np.ndarray, "batch height width channels"]
Labels = Int[Array | np.ndarray, " batch"]
Mask = Bool[Array | np.ndarray, " batch"]


class Recipe(NamedTuple):
    """What a training step does beside one plain gradient step on the mean cross-entropy."""

    seed: int = 0
    """Settles, with the number of the step, all that is random in it."""
    augment: Callable[[Key[Array, ""], Images], Images] | None = None
    label_smoothing: float = 0.0
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
    """Cross-entropy to the labels as they are, as in an evaluation: without smoothing and penalty."""
    accuracy: Float[Array, ""]
    forward_iterations: Float[Array, ""]
    forward_residual: Float[Array, ""]
    adjoint_iterations: Float[Array, ""]
    adjoint_residual: Float[Array, ""]
    forward_converged: Float[Array, ""]
    """Share of the samples whose forward solve reached its tolerance; NaN where there is no equilibrium to solve."""
    adjoint_converged: Float[Array, ""]
    """Share of the samples whose adjoint solve reached its own; NaN where none is made to a tolerance."""
    penalty: Float[Array, ""]
    """The penalty, unweighted; NaN in steps without it."""
    is_finite: Bool[Array, ""]
    """The loss and every gradient are."""


class EvalSums(NamedTuple):
    """Sums over the images of a batch that count; divided by the sum of `images` they are means over a data set."""

    images: Float[Array, ""]
    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    forward_iterations: Float[Array, ""]
    forward_residual: Float[Array, ""]
    forward_converged: Float[Array, ""]


TrainStep = Callable[[TrainState, Images, Labels], tuple[TrainState, TrainMetrics]]
EvalStep = Callable[[PyTree, PyTree, Images, Labels, Mask], EvalSums]


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
    model: Classifier,
    optimizer: optax.GradientTransformation,
    recipe: Recipe = Recipe(),  # noqa: B008
) -> TrainStep:
    """The function (state, images, labels) -> (state, metrics): one update on the mean cross-entropy of a batch.

    Images are 0 to 255 and scaled to [0, 1]. The adjoint solve's evaluations and residuals come out as the gradient of
    `deq_jax.adjoint_report`. Jit it with `donate_argnums=0`, so that the update happens in place.
    """
    graph = as_graph(model, training=True)

    def loss_of(
        params: PyTree,
        report: deq_jax.AdjointReport,
        batch_stats: PyTree,
        images: Images,
        labels: Labels,
        key: Key[Array, ""],
    ) -> tuple[Float[Array, ""], tuple[Any, ...]]:
        model = nnx.merge(graph, params, batch_stats)
        x = model.inject(scaled(images))
        solution = model.solve(x, report=report)
        logits = model.classify(solution.value)
        total = cross_entropy(logits, labels, recipe.label_smoothing).mean()
        penalty = jnp.full((), jnp.nan)
        if recipe.penalty_weight:
            cell = prepared(model.cell)
            penalty = recipe.penalty(lambda z: cell(z, x), solution.value, key)
            total += recipe.penalty_weight * penalty
        loss = cross_entropy(logits, labels).mean()
        return total, (loss, penalty, logits, solution, nnx.as_pure(nnx.state(model, nnx.BatchStat)))

    def train_step(state: TrainState, images: Images, labels: Labels) -> tuple[TrainState, TrainMetrics]:
        augment_key, penalty_key = jax.random.split(jax.random.fold_in(jax.random.key(recipe.seed), state.step))
        if recipe.augment is not None:
            images = recipe.augment(augment_key, images)
        no_report = deq_jax.adjoint_report(images.shape[0])
        value_and_grad = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        (total, (loss, penalty, logits, solution, batch_stats)), (grads, report) = value_and_grad(
            state.params, no_report, state.batch_stats, images, labels, penalty_key
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if recipe.average_decay is not None:
            average = _averaged(average, (params, batch_stats), recipe.average_decay, state.step)
        metrics = TrainMetrics(
            loss=loss,
            accuracy=_hits(logits, labels).mean(),
            forward_iterations=solution.iterations.astype(jnp.float32).mean(),
            forward_residual=solution.residual.mean(),
            adjoint_iterations=_where_solved(model, report.iterations).mean(),
            adjoint_residual=_where_solved(model, report.residual).mean(),
            forward_converged=_where_solved(model, _is_converged(solution.status)).mean(),
            adjoint_converged=_where_solved(
                model, jnp.where(jnp.isnan(report.residual), jnp.nan, _is_converged(report.status))
            ).mean(),
            penalty=penalty,
            is_finite=jnp.isfinite(total) & jnp.isfinite(optax.tree.norm(grads)),
        )
        return TrainState(state.step + 1, params, batch_stats, opt_state, average), metrics

    return train_step


def make_eval_step(model: Classifier, *, flip: bool = False) -> EvalStep:
    """The function (params, batch_stats, images, labels, mask) -> sums over the images whose mask is True.

    Normalisation uses the running statistics, so an image's result does not depend on its batch. With `flip` logits are
    the mean of an image's and its mirror image's, at twice the work; the solve that is reported is the image's.
    """
    graph = as_graph(model, training=False)

    def eval_step(params: PyTree, batch_stats: PyTree, images: Images, labels: Labels, mask: Mask) -> EvalSums:
        model = nnx.merge(graph, params, batch_stats)
        logits, solution = model(scaled(images))
        if flip:
            logits = (logits + model(scaled(images[:, :, ::-1]))[0]) / 2

        def total(values: Array) -> Float[Array, ""]:
            return jnp.where(mask, values.astype(jnp.float32), 0).sum()

        return EvalSums(
            images=mask.astype(jnp.float32).sum(),
            loss=total(cross_entropy(logits, labels)),
            accuracy=total(_hits(logits, labels)),
            forward_iterations=total(solution.iterations),
            forward_residual=total(solution.residual),
            forward_converged=total(_where_solved(model, _is_converged(solution.status))),
        )

    return eval_step


def as_graph(model: Classifier, *, training: bool) -> nnx.GraphDef:
    """The model without its arrays, set to training or to evaluation; the model itself stays as it is."""
    copy = nnx.clone(model)
    copy.train() if training else copy.eval()
    return nnx.split(copy, nnx.Param, nnx.BatchStat)[0]


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Labels, smoothing: float = 0.0
) -> Float[Array, " batch"]:
    """Cross-entropy against labels of which a share `smoothing` is spread evenly over all classes."""
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def _averaged(average: PyTree, values: PyTree, decay: float, step: Int[Array, ""]) -> PyTree:
    """The moving average, its decay at step t at most (1 + t) / (10 + t), so that the first weights are soon forgotten.

    Batch statistics are averaged over the same window as the parameters that they belong to.
    """
    t = step.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + t) / (10 + t))
    return jax.tree.map(lambda mean, value: mean + (1 - kept) * (value - mean), average, values)


def scaled(images: Images) -> Float[Array, "batch height width channels"]:
    """Pixels of 0 to 255 as numbers of 0 to 1."""
    return jnp.asarray(images, jnp.float32) / 255


def _where_solved(model: Classifier, values: Float[Array, " batch"]) -> Float[Array, " batch"]:
    """What a solve has measured; NaN where the model has only ordinary layers, and so no solve."""
    return values if model.cell is not None else jnp.full_like(values, jnp.nan)


def _is_converged(status: Array) -> Float[Array, " batch"]:
    return (status == deq_jax.Status.CONVERGED).astype(jnp.float32)


def _hits(logits: Float[Array, "batch classes"], labels: Labels) -> Float[Array, " batch"]:
    return (logits.argmax(-1) == labels).astype(jnp.float32)
