"""One step of training and one of evaluation: pure functions of arrays, for plain `jax.jit`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt8

import deq_jax

Images = UInt8[Array | np.ndarray, "batch height width channels"]
Labels = Int[Array | np.ndarray, " batch"]
Mask = Bool[Array | np.ndarray, " batch"]


class TrainState(NamedTuple):
    """All that a run carries from step to step, and all that a checkpoint holds."""

    step: Int[Array, ""]
    """Steps taken."""
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree


class TrainMetrics(NamedTuple):
    """Means over the batch of one training step, measured before its update."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    forward_iterations: Float[Array, ""]
    forward_residual: Float[Array, ""]
    adjoint_iterations: Float[Array, ""]
    adjoint_residual: Float[Array, ""]
    forward_converged: Float[Array, ""]
    """Share of the samples whose forward solve reached its tolerance."""
    adjoint_converged: Float[Array, ""]
    """Share of the samples whose adjoint solve reached its own."""
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


def create_state(model: nnx.Module, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step. The model may hold parameters and batch statistics, nothing else."""
    _, *arrays = nnx.split(model, nnx.Param, nnx.BatchStat)
    # Copies: a donated state takes its arrays with it, and the model should keep its own.
    params, batch_stats = jax.tree.map(jnp.copy, nnx.as_pure(arrays))
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params))


def make_train_step(model: nnx.Module, optimizer: optax.GradientTransformation) -> TrainStep:
    """The function (state, images, labels) -> (state, metrics): one update on the mean cross-entropy of a batch.

    Images are 0 to 255 and scaled to [0, 1]. The adjoint solve's evaluations and residuals come out as the gradient of
    `deq_jax.adjoint_report`. Jit it with `donate_argnums=0`, so that the update happens in place.
    """
    graph = _graph(model, training=True)

    def loss_of(
        params: PyTree, report: deq_jax.AdjointReport, batch_stats: PyTree, images: Images, labels: Labels
    ) -> tuple[Float[Array, ""], tuple[Any, ...]]:
        model = nnx.merge(graph, params, batch_stats)
        logits, solution = model(_scaled(images), report=report)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (logits, solution, nnx.as_pure(nnx.state(model, nnx.BatchStat)))

    def train_step(state: TrainState, images: Images, labels: Labels) -> tuple[TrainState, TrainMetrics]:
        no_report = deq_jax.adjoint_report(images.shape[0])
        value_and_grad = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        (loss, (logits, solution, batch_stats)), (grads, report) = value_and_grad(
            state.params, no_report, state.batch_stats, images, labels
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = TrainMetrics(
            loss=loss,
            accuracy=_hits(logits, labels).mean(),
            forward_iterations=solution.iterations.astype(jnp.float32).mean(),
            forward_residual=solution.residual.mean(),
            adjoint_iterations=report.iterations.mean(),
            adjoint_residual=report.residual.mean(),
            forward_converged=_is_converged(solution.status).mean(),
            adjoint_converged=_is_converged(report.status).mean(),
            is_finite=jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads)),
        )
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    return train_step


def make_eval_step(model: nnx.Module) -> EvalStep:
    """The function (params, batch_stats, images, labels, mask) -> sums over the images whose mask is True.

    Normalisation uses the running statistics, so an image's result does not depend on its batch.
    """
    graph = _graph(model, training=False)

    def eval_step(params: PyTree, batch_stats: PyTree, images: Images, labels: Labels, mask: Mask) -> EvalSums:
        logits, solution = nnx.merge(graph, params, batch_stats)(_scaled(images))

        def total(values: Array) -> Float[Array, ""]:
            return jnp.where(mask, values.astype(jnp.float32), 0).sum()

        return EvalSums(
            images=mask.astype(jnp.float32).sum(),
            loss=total(optax.softmax_cross_entropy_with_integer_labels(logits, labels)),
            accuracy=total(_hits(logits, labels)),
            forward_iterations=total(solution.iterations),
            forward_residual=total(solution.residual),
            forward_converged=total(_is_converged(solution.status)),
        )

    return eval_step


def _graph(model: nnx.Module, *, training: bool) -> nnx.GraphDef:
    """The model without its arrays, set to training or to evaluation; the model itself stays as it is."""
    copy = nnx.clone(model)
    copy.train() if training else copy.eval()
    return nnx.split(copy, nnx.Param, nnx.BatchStat)[0]


def _scaled(images: Images) -> Float[Array, "batch height width channels"]:
    return jnp.asarray(images, jnp.float32) / 255


def _is_converged(status: Array) -> Float[Array, " batch"]:
    return (status == deq_jax.Status.CONVERGED).astype(jnp.float32)


def _hits(logits: Float[Array, "batch classes"], labels: Labels) -> Float[Array, " batch"]:
    return (logits.argmax(-1) == labels).astype(jnp.float32)
