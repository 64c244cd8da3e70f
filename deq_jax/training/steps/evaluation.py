"""What is measured of a model: means over a whole data set, and how contractive the cell is at some equilibria."""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PyTree

import deq_jax
from deq_jax.training.steps.batches import Batch
from deq_jax.training.steps.model import opened
from deq_jax.training.steps.step import EvalStep, EvalSums, TrainState
from deq_jax.training.task import Examples, Outcome

_ITERATIONS = 20
"""Of which the estimate is the mean over the last half."""

RadiusStep = Callable[[PyTree, PyTree, Examples], Float[Array, " batch"] | None]


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


def make_radius_step(model: nnx.Module, evaluate: Callable[[Any, Examples], Outcome]) -> RadiusStep:
    """The function (params, batch_stats, examples) -> spectral radius of ∂f/∂z at each sample's equilibrium.

    The largest where there are several, infinite where a state is not finite; None where there is no equilibrium.
    """
    with_arrays = opened(model, training=False)

    def radius_step(params: PyTree, batch_stats: PyTree, examples: Examples) -> Float[Array, " batch"] | None:
        outcome = evaluate(with_arrays(params, batch_stats), examples)
        radii = [
            jnp.where(
                _is_finite(solution.value),
                deq_jax.spectral_radius(f, solution.value, jax.random.key(0), _ITERATIONS),
                jnp.inf,
            )
            for f, solution in outcome.equilibria
        ]
        return functools.reduce(jnp.maximum, radii) if radii else None

    return radius_step


def _is_finite(z: PyTree) -> Bool[Array, " batch"]:
    finite = [jnp.isfinite(leaf).reshape(len(leaf), -1).all(1) for leaf in jax.tree.leaves(z)]
    return functools.reduce(jnp.logical_and, finite)
