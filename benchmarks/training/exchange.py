"""What the contestants share through files: the problem, the weights and the batches, in one common layout.

NumPy only, so that it can be read from any Python and any framework. The common layout is deq_jax's: images and states
``[batch, height, width, channels]``, kernels ``[height, width, in, out]``, the head's kernel ``[features, classes]``
with the features counted along height, width, then channels.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]
INITIAL = "initial"
"""The weights that a contestant begins with."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """The chapter's model and how it is solved and trained; every contestant reads the same."""

    batch: int = 100
    image: tuple[int, int, int] = (32, 32, 3)
    num_classes: int = 10
    channels: int = 48
    inner_channels: int = 64
    num_groups: int = 8
    kernel_size: int = 3
    pool: int = 8
    m: int = 5
    tol: float = 1e-2
    max_iter: int = 25
    learning_rate: float = 1e-3
    seed: int = 0

    @property
    def state_size(self) -> int:
        """Numbers in one sample's state."""
        return self.image[0] * self.image[1] * self.channels


def write(
    folder: Path, problem: Problem, weights: Mapping[str, Arrays], images: np.ndarray, labels: np.ndarray
) -> None:
    """Write a problem with its weights, by the names that a reset calls them, and its batches into ``folder``.

    Images are ``[n, batch, h, w, c]`` of 0 to 255.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "problem.json").write_text(json.dumps(dataclasses.asdict(problem), indent=1) + "\n")
    for name, arrays in weights.items():
        np.savez(folder / f"{name}.weights.npz", **arrays)
    np.savez(folder / "batches.npz", images=images, labels=labels)


def read(folder: Path) -> tuple[Problem, dict[str, Arrays], np.ndarray, np.ndarray]:
    """What :func:`write` wrote: the problem, all weights by name, images and labels."""
    fields = json.loads((folder / "problem.json").read_text())
    problem = Problem(**{**fields, "image": tuple(fields["image"])})
    batches = load_arrays(folder / "batches.npz")
    weights = {path.name.split(".")[0]: load_arrays(path) for path in sorted(folder.glob("*.weights.npz"))}
    return problem, weights, batches["images"], batches["labels"]


def load_arrays(path: Path) -> Arrays:
    """All arrays of an .npz file."""
    with np.load(path) as file:
        return dict(file)


def common_name(path: Iterable[str]) -> str:
    """The name of a parameter in the common layout, whatever its cell is wrapped in: ``cell.conv1.kernel``."""
    parts = list(path)
    if "cell" in parts:
        parts = ["cell", *parts[len(parts) - parts[::-1].index("cell") :]]
    return ".".join(part for part in parts if part != "deq")


def to_torch(weights: Mapping[str, np.ndarray], problem: Problem) -> Arrays:
    """Weights or gradients in PyTorch's names and layout.

    Convolutions become ``[out, in, height, width]``. The head becomes ``[classes, features]``, its features reordered
    to channels, height, width: PyTorch flattens another layout of the pooled image.
    """
    return {_torch_name(name): _to_torch_array(name, array, problem) for name, array in weights.items()}


def from_torch(weights: Mapping[str, np.ndarray], problem: Problem, names: Iterable[str]) -> Arrays:
    """The inverse of :func:`to_torch`, for parameters of these common names."""
    return {name: _from_torch_array(name, weights[_torch_name(name)], problem) for name in names}


def channels_first(images: np.ndarray) -> np.ndarray:
    """Images or states as PyTorch has them, ``[batch, channels, height, width]``."""
    return np.ascontiguousarray(np.moveaxis(images, -1, -3))


def channels_last(images: np.ndarray) -> np.ndarray:
    """The inverse of :func:`channels_first`."""
    return np.ascontiguousarray(np.moveaxis(images, -3, -1))


def _torch_name(name: str) -> str:
    return name.replace("kernel", "weight").replace("scale", "weight")


def _pooled(problem: Problem) -> tuple[int, int, int]:
    height, width, _ = problem.image
    return height // problem.pool, width // problem.pool, problem.channels


def _to_torch_array(name: str, array: np.ndarray, problem: Problem) -> np.ndarray:
    if name == "head.kernel":
        array = array.reshape(*_pooled(problem), -1).transpose(3, 2, 0, 1).reshape(array.shape[1], -1)
    elif name.endswith("kernel"):
        array = array.transpose(3, 2, 0, 1)
    return np.ascontiguousarray(array)


def _from_torch_array(name: str, array: np.ndarray, problem: Problem) -> np.ndarray:
    if name == "head.kernel":
        height, width, channels = _pooled(problem)
        array = array.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(array.shape[1], -1)
    elif name.endswith("kernel"):
        array = array.transpose(2, 3, 1, 0)
    return np.ascontiguousarray(array)
