"""An .npz of images and labels."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from deq_jax.tasks.images.data.split import is_test
from deq_jax.training.errors import UserError

_KEYS = (("images", "labels"), ("test_images", "test_labels")), (("x_train", "y_train"), ("x_test", "y_test"))
_NAMES = ("classes", "class_names", "label_names")
_EXPECTED = "Expected the arrays images and labels, and perhaps test_images, test_labels and classes; or x_train, …"

Arrays = tuple[UInt8[np.ndarray, "n height width channels"], Int32[np.ndarray, " n"], tuple[str, ...]]


def read(file: Path, split: str) -> Arrays:
    """Images, labels and class names of "train" or "test": without arrays of its own a stratified fifth.

    Raises:
        UserError: there is no such file, or its arrays are others.
    """
    arrays = _arrays(file)
    pairs = next((pairs for pairs in _KEYS if set(pairs[0]) <= arrays.keys()), None)
    if pairs is None:
        found = ", ".join(sorted(arrays)[:5]) or "nothing"
        raise UserError(f"{file} holds {found}. {_EXPECTED}.")
    train, test = pairs
    labels = _labels(file, train, arrays)
    classes = _classes(file, labels, arrays)
    if not set(test) & arrays.keys():
        images, chosen = _images(file, train[0], arrays), is_test(labels) == (split == "test")
        return images[chosen], labels[chosen], classes
    missing = [name for name in test if name not in arrays]
    if missing:
        raise UserError(f"{file} lacks {missing[0]} beside {', '.join(set(test) & arrays.keys())}. {_EXPECTED}.")
    pair = test if split == "test" else train
    labels = _labels(file, pair, arrays)
    _require_in_range(file, pair[1], labels, len(classes))
    return _images(file, pair[0], arrays), labels, classes


def _arrays(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise UserError(f"{file} {'is a folder' if file.is_dir() else 'does not exist'}; expected an .npz file.")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            known = {name for pairs in _KEYS for pair in pairs for name in pair} | set(_NAMES)
            # Of others the names alone, for an error.
            return {name: archive[name] if name in known else np.empty(0) for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        reason = "its arrays hold Python objects" if "allow_pickle" in str(error) else "it is damaged, or another file"
        raise UserError(f"{file} cannot be read as an .npz: {reason}. Write it by numpy.savez.") from error


def _images(file: Path, name: str, arrays: dict[str, Any]) -> UInt8[np.ndarray, "n height width channels"]:
    images = arrays[name]
    if images.dtype != np.uint8:
        advice = "; of numbers from 0 to 1: (255 * images).round().astype('uint8')" if images.dtype.kind == "f" else ""
        raise UserError(f"{name} of {file} is {images.dtype}; expected uint8, from 0 to 255{advice}.")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or not images.size:
        raise UserError(
            f"{name} of {file} has the shape {list(arrays[name].shape)}; expected [n, height, width] or "
            f"[n, height, width, channels] of 1, 3 or 4 channels."
        )
    return images


def _labels(file: Path, pair: tuple[str, str], arrays: dict[str, Any]) -> Int32[np.ndarray, " n"]:
    labels, images = arrays[pair[1]], arrays[pair[0]]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise UserError(
            f"{pair[1]} of {file} is {labels.dtype}{list(labels.shape)}; expected whole numbers [n], a class each."
        )
    if len(labels) != len(images):
        raise UserError(f"{file} holds {len(images):,} {pair[0]}, but {len(labels):,} {pair[1]}; give each its own.")
    return np.clip(labels, -1, 2**30).astype(np.int32)


def _classes(file: Path, labels: Int32[np.ndarray, " n"], arrays: dict[str, Any]) -> tuple[str, ...]:
    """The names that the file has, or numbers."""
    key = next((name for name in _NAMES if name in arrays), None)
    if key is not None:
        names = tuple(str(name) for name in arrays[key].ravel())
        _require_in_range(file, "labels", labels, len(names), f" as {key} names them")
    else:
        present = np.unique(labels)
        if len(present) and not np.array_equal(present, np.arange(len(present))):
            lacking = min(set(range(len(present) + 1)) - set(present.tolist()))
            raise UserError(
                f"labels of {file} are out of range: they go from {present[0]} to {present[-1]}, and none is "
                f"{lacking}.\nExpected all of 0 to {len(present) - 1} for {len(present)} classes, or names of the "
                f"classes under classes."
            )
        names = tuple(str(label) for label in present)
    if len(names) < 2:
        raise UserError(f"{file} has {len(names) or 'no'} class; two are the least.")
    return names


def _require_in_range(file: Path, name: str, labels: np.ndarray, classes: int, why: str = "") -> None:
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        outside = labels.min() if labels.min() < 0 else labels.max()
        raise UserError(
            f"{name} of {file} are out of range: one is {outside}, but there are {classes} classes, 0 to "
            f"{classes - 1}{why}."
        )
