"""A classifier over a whole data set, class by class."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from deq_jax.tasks.images.data import Examples
from deq_jax.tasks.images.task import judged
from deq_jax.training.devices.devices import all_devices
from deq_jax.training.settings.precision import Precision
from deq_jax.training.steps.batches import count, eval_batch_size, eval_batches
from deq_jax.training.steps.model import opened
from deq_jax.training.steps.solved import forward
from deq_jax.training.steps.solving import in_precision

MEANS = ("loss", "accuracy", "forward_iterations", "forward_residual", "converged")


def measured(
    model: nnx.Module,
    weights: tuple[PyTree, PyTree],
    examples: Examples,
    num_classes: int,
    batch_size: int,
    *,
    flip: bool = False,
    epsilon: float | None = None,
    precision: Precision = "default",
) -> tuple[dict[str, float], Int[np.ndarray, "classes classes"]]:
    """Means over every image, on all devices, and in row i and column j how many of class i were taken for class j."""
    with_arrays, devices = opened(model, training=False), all_devices()

    def judge(
        params: PyTree, batch_stats: PyTree, examples: Examples
    ) -> tuple[Int[Array, " batch"], dict[str, Float[Array, " batch"]]]:
        logits, outcome = judged(with_arrays(params, batch_stats), examples, flip=flip, epsilon=epsilon)
        solved = forward(outcome.solutions, len(examples.labels))
        values = {
            "loss": outcome.loss,
            **outcome.metrics,
            "forward_iterations": solved.iterations,
            "forward_residual": solved.residual,
            "converged": solved.converged,
        }
        return jnp.argmax(logits, -1), values

    step = devices.jitted(in_precision(precision, judge))
    weights = devices.everywhere(weights)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    rows: list[dict[str, np.ndarray]] = []
    for batch in eval_batches(examples, eval_batch_size(count(examples), batch_size, devices.number)):
        taken_for, values = jax.device_get(step(*weights, devices.spread(batch.examples)))
        np.add.at(confusion, (batch.examples.labels[batch.mask], taken_for[batch.mask]), 1)
        rows.append({name: value[batch.mask] for name, value in values.items()})
    names = (*MEANS, *(name for name in rows[0] if name not in MEANS))
    means = {name: float(np.concatenate([row[name] for row in rows]).mean(dtype=np.float64)) for name in names}
    return means, confusion
