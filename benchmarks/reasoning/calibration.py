"""Does a residual tell a wrong answer from a right one?"""

from typing import NamedTuple

import numpy as np

MOST_REFUSED = 0.05
"""Of the right answers a threshold may refuse so many."""


class Calibration(NamedTuple):
    """What refusing answers of large residuals is worth."""

    area: float
    """How likely a wrong answer has the larger residual of a wrong and a right one; ties count half. 1/2: no use."""
    threshold: float
    """Residual above which an answer is refused, chosen on one half of the problems."""
    found: float
    """Share of the wrong answers that are refused, of the other half."""
    refused: float
    """Share of the right ones that are, of the other half."""
    wrong: int
    """Wrong answers in all."""
    right: int
    """Right ones."""


def calibrated(residual: np.ndarray, exact: np.ndarray, tol: float) -> Calibration | None:
    """The threshold that refuses at most `MOST_REFUSED` of the right answers, and as many wrong ones as that allows.

    It is not below ``tol``, the tolerance of the solves: where they stopped beneath that is chance. None where either
    half of the problems, every other one, holds not both kinds.
    """
    residual, exact = np.asarray(residual, float), np.asarray(exact, bool)
    halves = [(residual[start::2], exact[start::2]) for start in (0, 1)]
    if any(kind.all() or not kind.any() for _, kind in halves):
        return None
    (chosen, is_right), (judged, is_right_there) = halves
    ordered = np.sort(chosen[is_right])
    threshold = max(tol, ordered[len(ordered) - 1 - int(MOST_REFUSED * len(ordered))].item())
    refuses = judged > threshold
    return Calibration(
        area(residual[exact], residual[~exact]),
        threshold,
        float(refuses[~is_right_there].mean()),
        float(refuses[is_right_there].mean()),
        int((~exact).sum()),
        int(exact.sum()),
    )


def area(right: np.ndarray, wrong: np.ndarray) -> float:
    """The area under the curve of wrong answers found over right ones refused, of all thresholds.

    It is the Mann-Whitney statistic: the share of pairs in which the wrong answer has the larger residual.
    """
    ordered = np.sort(right)
    below = np.searchsorted(ordered, wrong, side="left")
    up_to = np.searchsorted(ordered, wrong, side="right")
    return float((below + up_to).sum() / (2 * len(right) * len(wrong)))
