"""One split of a data set of images, as a task takes it."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Array, Int, UInt8

Images = UInt8[Array | np.ndarray, "batch height width channels"]
Labels = Int[Array | np.ndarray, " batch"]


class Examples(NamedTuple):
    """Images of 0 to 255, and the class of each."""

    images: Images
    labels: Labels


class Streamed(Protocol):
    """Examples that are read as they are asked for: ``len()`` is their number, ``streamed[rows]`` gives these rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Examples: ...


class Dataset(NamedTuple):
    """One split."""

    examples: Examples | Streamed
    """What a run trains on: arrays in memory, or what is read as it is asked for."""
    classes: tuple[str, ...]
    """The names of the classes, in the order of their labels."""
    image_shape: tuple[int, int, int]
    """Height, width and channels of every image."""
    encoding: str | None = None
    """How the images were stored: such as JPEG, which loses a little, or PNG; None for plain arrays."""
    files: str | None = None
    """A digest of the names and sizes of the files; None where they are not files of the user's own."""

    @property
    def images(self) -> Images:
        """The images, of a data set in memory."""
        assert isinstance(self.examples, Examples)
        return self.examples.images

    @property
    def labels(self) -> Labels:
        """The labels, of a data set in memory."""
        assert isinstance(self.examples, Examples)
        return self.examples.labels

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)
