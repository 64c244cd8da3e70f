"""Patches of the photographs that ship with scikit-learn, blurred."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from deq_jax.tasks.inverse.blur import blur_matrix, blurred
from deq_jax.tasks.inverse.config import DataConfig

_TRAIN_SHARE = 0.7
"""Of every photograph the left part is trained on, the rest tested on."""

Patches = Float[Array | np.ndarray, "batch side side"]


class Pair(NamedTuple):
    """Patches as they are and as they were measured; black is 0, white 1."""

    measured: Patches
    clean: Patches


class Patched:
    """A source of a task's data: patch ``i`` is a matter of the seed and of ``i`` alone.

    Args:
        data: what is cut out, and what happens to it.
        split: "train" or "test", of which each has its own part of the photographs.
        size: how many an epoch reads.
        seed: settles which.
    """

    is_endless = True

    def __init__(self, data: DataConfig, split: str, size: int, seed: int):
        self._data = data
        self._photographs = [_part(photograph, split) for photograph in photographs()]
        self._matrix = blur_matrix(data.side, data.blur)
        self._size = size
        self._seed = (seed, split == "test")

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, rows: Int[np.ndarray, " rows"] | slice) -> Pair:
        """The patches of these numbers; a slice is one of the first epoch's."""
        numbers = np.arange(self._size)[rows] if isinstance(rows, slice) else np.asarray(rows)
        clean, noise = (np.stack(arrays) for arrays in zip(*map(self._cut, numbers), strict=True))
        return Pair(blurred(clean, self._matrix) + self._data.noise * noise, clean)

    def _cut(self, number: Any) -> tuple[np.ndarray, np.ndarray]:
        rng, side = np.random.default_rng((*self._seed, int(number))), self._data.side
        photograph = self._photographs[rng.integers(len(self._photographs))]
        row, column = (int(rng.integers(length - side + 1)) for length in photograph.shape)
        noise = rng.standard_normal((side, side), np.float32)
        return photograph[row : row + side, column : column + side], noise


def photographs() -> list[Float[np.ndarray, "height width"]]:
    """A temple and a flower, in grey."""
    from sklearn.datasets import load_sample_images  # slow to import

    grey = np.array([0.299, 0.587, 0.114], np.float32) / 255
    return [np.asarray(image, np.float32) @ grey for image in load_sample_images().images]


def _part(photograph: np.ndarray, split: str) -> np.ndarray:
    edge = round(_TRAIN_SHARE * photograph.shape[1])
    return photograph[:, :edge] if split == "train" else photograph[:, edge:]
