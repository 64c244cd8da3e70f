"""A part of the training samples that is not trained on."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from deq_jax.training.errors import UserError
from deq_jax.training.steps.batches import count
from deq_jax.training.task import Data, Examples


class _Part:
    """Some rows of an array or a source."""

    def __init__(self, source: Any, rows: Int[np.ndarray, " n"]) -> None:
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Any) -> Any:
        return self._source[self._rows[rows]]

    def expect(self, rows: Int[np.ndarray, " batch"]) -> None:
        if hasattr(self._source, "expect"):
            self._source.expect(self._rows[rows])


def divided(data: Data, share: float, seed: int) -> Mapping[str, Examples]:
    """The splits, with a share of the training samples, drawn by the seed, as the split "validation".

    Raises:
        UserError: there is one already, or one of the two would be empty.
    """
    if not share:
        return data.splits
    if "validation" in data.splits:
        raise UserError(f"validation.share is {share:g}, but the data have a split of their own; set it to 0.")
    train = data.splits["train"]
    samples = count(train)
    apart = round(share * samples)
    if not 0 < apart < samples:
        raise UserError(f"validation.share {share:g} leaves {samples - apart:,} of {samples:,} training {data.unit}.")
    order = np.random.default_rng((seed, samples)).permutation(samples)
    rows = {"train": np.sort(order[apart:]), "validation": np.sort(order[:apart])}
    return {
        **data.splits,
        **{name: jax.tree.map(lambda leaf, chosen=chosen: _Part(leaf, chosen), train) for name, chosen in rows.items()},
    }
