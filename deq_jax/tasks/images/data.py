"""Data sets as arrays in memory, and the order in which training and evaluation read them.

The order is stateless: batch k of epoch e is a function of the seed alone, so a resumed run reads what an uninterrupted
one would have read.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

from deq_jax.tasks.images import cifar10
from deq_jax.training.errors import UserError

# Every seed shares one split of the digits, so that accuracies of different seeds can be compared.
_DIGITS_SPLIT_SEED = 0
_DIGITS_TEST_SHARE = 0.2


class Dataset(NamedTuple):
    """One split: images of 0 to 255, the class of each, how many classes there are, and how the images were stored."""

    images: UInt8[np.ndarray, "n height width channels"]
    labels: Int32[np.ndarray, " n"]
    num_classes: int
    encoding: str | None = None
    """Such as JPEG, which loses a little, or PNG; None for plain arrays."""


class Batch(NamedTuple):
    """Images of a fixed number. Where mask is False an image only fills the batch up and does not count."""

    images: UInt8[np.ndarray, "batch height width channels"]
    labels: Int32[np.ndarray, " batch"]
    mask: Bool[np.ndarray, " batch"]


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


def describe(train: Dataset, test: Dataset) -> dict[str, Any]:
    """What tells these data from others, as environment.json keeps it: numbers of images, storage, and a digest."""
    digest = hashlib.sha256()
    for array in (train.images, train.labels, test.images, test.labels):
        digest.update(np.ascontiguousarray(array).data)
    return {
        "training_images": len(train.labels),
        "test_images": len(test.labels),
        "encoding": train.encoding,
        "digest": digest.hexdigest(),
    }


def epoch_order(seed: int, epoch: int, n: int) -> Int[np.ndarray, " n"]:
    """The permutation of 0 … n − 1 in which epoch `epoch` reads the images."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def train_batch(dataset: Dataset, seed: int, step: int, batch_size: int) -> Batch:
    """The images of training step `step` (0, 1, …), which is batch k of epoch e with step = e · (n // batch_size) + k.

    Each epoch leaves out its last n mod batch_size images: every batch has one shape, and nothing recompiles.
    """
    epoch, k = divmod(step, len(dataset.labels) // batch_size)
    rows = epoch_order(seed, epoch, len(dataset.labels))[k * batch_size : (k + 1) * batch_size]
    return Batch(dataset.images[rows], dataset.labels[rows], np.ones(batch_size, bool))


def eval_batches(dataset: Dataset, batch_size: int) -> Iterator[Batch]:
    """Every image exactly once, in order; the last batch is filled up with its own first image, masked out.

    An image that is there already costs no further evaluation of the equilibrium, which a blank one might.
    """
    n = len(dataset.labels)
    for start in range(0, n, batch_size):
        rows = np.arange(start, start + batch_size)
        mask = rows < n
        rows = np.where(mask, rows, start)
        yield Batch(dataset.images[rows], dataset.labels[rows], mask)


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
