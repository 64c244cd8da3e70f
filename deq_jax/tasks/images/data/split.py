"""The share that is set aside for testing where the data come without a test split."""

import numpy as np
from jaxtyping import Bool, Int

TEST_SHARE = 0.2
_SEED = 0
"""Every run shares one split, so that accuracies of different seeds can be compared."""


def is_test(labels: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which samples are the test split: of every class a fifth, at least one where there are two, always the same."""
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        share = max(round(TEST_SHARE * len(rows)), 1) if len(rows) > 1 else 0
        order = np.random.default_rng((_SEED, int(label))).permutation(len(rows))
        chosen[rows[order[:share]]] = True
    return chosen
