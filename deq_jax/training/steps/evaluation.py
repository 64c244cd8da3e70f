"""A model over a whole data set."""

import math
from collections.abc import Callable, Iterable

import jax

from deq_jax.training.steps.batches import Batch
from deq_jax.training.steps.step import EvalStep, EvalSums, TrainState


def evaluate(
    eval_step: EvalStep, state: TrainState, batches: Iterable[Batch], is_cancelled: Callable[[], bool] = lambda: False
) -> dict[str, float] | None:
    """Means over every sample that counts, and their number, `samples`; None when cancelled between two batches."""
    sums = []
    for batch in batches:
        if is_cancelled():
            return None
        sums.append(eval_step(*state.evaluated, batch.examples, batch.mask))
    return eval_means(jax.device_get(sums))


def eval_means(sums: list[EvalSums]) -> dict[str, float]:
    """Means over a data set from its batches' sums, added up in float64; `samples`, their number, stays a sum."""
    rows = [{"samples": batch.samples, "loss": batch.loss, **batch.metrics, **batch._asdict()} for batch in sums]
    totals = {name: math.fsum(float(row[name]) for row in rows) for name in rows[0] if name != "metrics"}
    samples = totals.pop("samples")
    return {"samples": samples} | {name: total / samples for name, total in totals.items()}
