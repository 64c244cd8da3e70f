"""Data sets of images as arrays in memory."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Int, Int32, UInt8

from deq_jax.tasks.images import cifar10
from deq_jax.training.errors import UserError

# Every seed shares one split of the digits, so that accuracies of different seeds can be compared.
_DIGITS_SPLIT_SEED = 0
_DIGITS_TEST_SHARE = 0.2


Images = UInt8[Array | np.ndarray, "batch height width channels"]
Labels = Int[Array | np.ndarray, " batch"]


class Examples(NamedTuple):
    """Images of 0 to 255, and the class of each."""

    images: Images
    labels: Labels


class Dataset(NamedTuple):
    """One split: images of 0 to 255, the class of each, how many classes there are, and how the images were stored."""

    images: UInt8[np.ndarray, "n height width channels"]
    labels: Int32[np.ndarray, " n"]
    num_classes: int
    encoding: str | None = None
    """Such as JPEG, which loses a little, or PNG; None for plain arrays."""

    @property
    def examples(self) -> Examples:
        """What a run trains on."""
        return Examples(self.images, self.labels)


def load(name: str, split: str, data_dir: Path | None = None) -> Dataset:
    """The split "train" or "test" of "digits" or "cifar10", wholly in memory.

    Raises:
        UserError: on an unknown name or split, or when CIFAR-10 is not to be had (see `cifar10.load`).
    """
    loaders = {"digits": lambda: _digits(split), "cifar10": lambda: _cifar10(split, data_dir)}
    if name not in loaders:
        raise UserError(f"unknown data set '{name}'; there are: {', '.join(loaders)}")
    if split not in ("train", "test"):
        raise UserError(f"unknown split '{split}'; there are: train, test")
    return loaders[name]()


def _cifar10(split: str, data_dir: Path | None) -> Dataset:
    images, labels, encoding = cifar10.load(split, data_dir)
    return Dataset(images, labels, 10, encoding)


def _digits(split: str) -> Dataset:
    """scikit-learn's 1,797 scanned digits, 8×8, their 17 grey levels spread over 0 to 255.

    A stratified fifth, always the same, is the test split.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    levels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    rows = train_test_split(
        np.arange(len(labels)), test_size=_DIGITS_TEST_SHARE, stratify=labels, random_state=_DIGITS_SPLIT_SEED
    )
    chosen = np.sort(rows[("train", "test").index(split)])
    return Dataset(levels[chosen], labels[chosen], 10)
