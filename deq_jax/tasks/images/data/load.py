"""A source by its name, as --data.source has it, becomes a split of a data set."""

from pathlib import Path

import numpy as np
from PIL import Image

from deq_jax.tasks.images.data import digits, folder, npz, tfds
from deq_jax.tasks.images.data.dataset import Dataset, Examples
from deq_jax.tasks.images.data.form import fitted, form_of
from deq_jax.tasks.images.groups import DataConfig
from deq_jax.training.errors import UserError


def load(source: str | DataConfig, split: str, data_dir: Path | None = None) -> Dataset:
    """The split "train" or "test" of a source.

    Args:
        source: "digits", "cifar10", "folder:DIR", "npz:FILE" or "tfds:NAME", or the settings that name it.
        split: which.
        data_dir: where TFDS has prepared its data sets, and where DIR and FILE are looked for.

    Raises:
        UserError: on an unknown source or split, or when the data are not to be had or are not what they should be.
    """
    how = _settings(source)
    if split not in ("train", "test"):
        raise UserError(f"unknown split '{split}'; there are: train, test")
    kind, where = how.kind_and_place
    path = (data_dir or Path()) / Path(where).expanduser()
    if kind == "folder":
        return folder.read(path, split, how)
    if kind == "tfds":
        return tfds.read(where, split, data_dir, how)
    if how.in_memory == "no":
        raise UserError(f"--data.in-memory no goes with folder:DIR and tfds:NAME; {how.source} is read as a whole.")
    return _of_arrays(*(digits.read(split) if kind == "digits" else npz.read(path, split)), how)


def _settings(source: str | DataConfig) -> DataConfig:
    if isinstance(source, str):
        try:
            source = DataConfig(source)
        except ValueError as error:
            raise UserError(str(error)) from error
    if not source.source:
        raise UserError(
            "no images are named. Give --data.source folder:DIR of a folder for every class, npz:FILE or tfds:NAME."
        )
    return source


def _of_arrays(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], how: DataConfig) -> Dataset:
    """Arrays in the form that the settings ask for."""
    pictures = (Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in images)
    form = form_of(how, [next(pictures)])
    if form.shape != images.shape[1:]:
        pictures = (Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in images)
        images = np.stack([fitted(picture, form) for picture in pictures])
    return Dataset(Examples(images, labels), classes, form.shape)
