"""What a step does beside what every step does: a run changes it at times known from the start."""

import itertools
import math
from typing import NamedTuple

from deq_jax.training.settings.settings import Settings
from deq_jax.training.settings.solves import AdjointKind


class Phase(NamedTuple):
    """What steps of one compiled program have in common."""

    adjoint_kind: AdjointKind
    max_iter: int
    """Evaluations of f at most."""
    has_penalty: bool
    unroll: int = 0
    """Evaluations of f that are differentiated through, instead of a solve; 0: there is a solve."""


def phase_of(settings: Settings, step: int, total: int) -> Phase:
    """The phase of training step `step` (0, 1, …) of `total`; a matter of the settings, so that a resume repeats it."""
    early, penalty = settings.early, settings.penalty
    is_early = step < early.share * total
    unroll = (is_early and early.unroll) or 0
    # Of every n steps the penalty takes part in about share · n, and in the first of them.
    first, last = math.ceil(penalty.start * total), math.ceil(penalty.stop * total)
    within = step - first
    is_due = math.ceil(within * penalty.share) < math.ceil((within + 1) * penalty.share)
    return Phase(
        adjoint_kind=(is_early and early.adjoint_kind) or settings.adjoint.kind,
        max_iter=(is_early and early.max_iter) or settings.solver.max_iter,
        # What is unrolled has no equilibrium for a penalty to be about.
        has_penalty=penalty.weight > 0 and first <= step < last and is_due and not unroll,
        unroll=unroll,
    )


def phases_of(settings: Settings, steps: range, total: int) -> set[Phase]:
    """All phases among these steps, found without a look at each: there may be a billion."""
    early, penalty = settings.early, settings.penalty
    first, last = math.ceil(penalty.start * total), math.ceil(penalty.stop * total)
    ends = {steps.start, steps.stop, math.ceil(early.share * total), first, last}
    bounds = sorted(min(max(end, steps.start), steps.stop) for end in ends)
    phases = set()
    for start, stop in itertools.pairwise(bounds):
        if start == stop:
            continue
        phase = phase_of(settings, start, total)  # between two bounds only the penalty's turns differ
        turns = math.ceil((stop - first) * penalty.share) - math.ceil((start - first) * penalty.share)
        if penalty.weight == 0 or phase.unroll or not first <= start < last:
            turns = 0
        phases |= {phase._replace(has_penalty=True)} if turns else set()
        phases |= {phase._replace(has_penalty=False)} if turns < stop - start else set()
    return phases
