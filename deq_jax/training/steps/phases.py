"""What a step does beside what every step does: a run changes it at times known from the start."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from deq_jax.training.settings.settings import Settings
from deq_jax.training.settings.solves import AdjointKind


class Phase(NamedTuple):
    """What steps of one compiled program have in common."""

    adjoint_kind: AdjointKind
    max_iter: int
    """Evaluations of f at most."""
    has_penalty: bool


def phase_of(settings: Settings, step: int, total: int) -> Phase:
    """The phase of training step `step` (0, 1, …) of `total`; a matter of the settings, so that a resume repeats it."""
    early, penalty = settings.early, settings.penalty
    is_early = step < early.share * total
    # Of every n steps the penalty takes part in about share · n, and in the first of them.
    first, last = math.ceil(penalty.start * total), math.ceil(penalty.stop * total)
    within = step - first
    is_due = math.ceil(within * penalty.share) < math.ceil((within + 1) * penalty.share)
    return Phase(
        adjoint_kind=(is_early and early.adjoint_kind) or settings.adjoint.kind,
        max_iter=(is_early and early.max_iter) or settings.solver.max_iter,
        has_penalty=penalty.weight > 0 and first <= step < last and is_due,
    )


def phases_of(settings: Settings, steps: Iterable[int], total: int) -> set[Phase]:
    """All phases among these steps."""
    return {phase_of(settings, step, total) for step in steps}
