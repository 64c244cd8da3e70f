"""A model over a whole data set."""

from collections.abc import Callable, Iterable

import jax

from deq_jax.tasks.images.data import Batch
from deq_jax.training.disk.metrics import eval_means
from deq_jax.training.steps.step import EvalStep, TrainState


def evaluate(
    eval_step: EvalStep, state: TrainState, batches: Iterable[Batch], is_cancelled: Callable[[], bool] = lambda: False
) -> dict[str, float] | None:
    """Means over every image that counts, and their number, `images`; None when cancelled between two batches."""
    sums = []
    for batch in batches:
        if is_cancelled():
            return None
        sums.append(eval_step(*state.evaluated, batch.images, batch.labels, batch.mask))
    return eval_means(jax.device_get(sums))
