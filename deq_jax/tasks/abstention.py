"""Abstaining: answers whose solve has not come to rest are refused, and it is counted what that is worth."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from deq_jax.training.errors import UserError
from deq_jax.training.task import Examples, Outcome

Evaluate = Callable[[Any, Examples], Outcome]
_EXACT = "exact"
"""The metric of tasks whose answers are right or wrong."""


def abstaining(evaluate: Evaluate, threshold: float) -> Evaluate:
    """The evaluation that also counts answers whose residual is at most ``threshold``, and metrics among them.

    Raises:
        UserError: the threshold is not positive, or a NaN.
    """
    if not threshold > 0:
        raise UserError(f"--abstain must be a positive residual, but is {threshold:g}")

    def counted(model: Any, examples: Examples) -> Outcome:
        outcome = evaluate(model, examples)
        if len(outcome.solutions) != 1:
            raise UserError("--abstain goes by the residual of an equilibrium, and this run's network solves for none.")
        kept = outcome.solutions[0].residual <= threshold
        of_kept = {f"kept_{name}": jnp.where(kept, value, 0.0) for name, value in outcome.metrics.items()}
        return outcome._replace(metrics={**outcome.metrics, "kept": kept.astype(jnp.float32), **of_kept})

    return counted


def told(means: dict[str, float]) -> dict[str, float]:
    """The means of such an evaluation as shares: NaN where none is left to take a share of.

    `kept` is the share of problems that are answered, `kept_NAME` a metric's mean among these. Where answers are right
    or wrong, `refused_wrong` and `refused_right` are the shares of either that are refused.
    """
    kept = means["kept"]
    shares = {name: _share(value, kept) if name.startswith("kept_") else value for name, value in means.items()}
    if _EXACT in means:
        exact, right = means[_EXACT], means[f"kept_{_EXACT}"]
        shares["refused_wrong"] = _share((1 - exact) - (kept - right), 1 - exact)
        shares["refused_right"] = _share(exact - right, exact)
    return shares


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
