"""What everyone trains on: weights drawn and trained by deq_jax, and batches of real images."""

import hashlib
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx
from tqdm.auto import trange

from benchmarks.environments import BENCH
from benchmarks.training.contestants.jax_model import build_model, named_arrays
from benchmarks.training.contestants.ours import layer
from benchmarks.training.exchange import Arrays, Problem, load_arrays
from deq_jax.tasks.images.data import Examples, load
from deq_jax.tasks.images.task import classification_loss
from deq_jax.training.steps.batches import train_batch
from deq_jax.training.steps.step import create_state, make_train_step


def draw_weights(problem: Problem) -> Arrays:
    """The first weights of deq_jax's classifier, from the problem's seed."""
    return named_arrays(nnx.as_pure(nnx.state(build_model(problem, layer), nnx.Param)))


def trained_weights(problem: Problem, steps: int, data_dir: Path | None = None, folder: Path = BENCH) -> Arrays:
    """Weights after so many steps of deq_jax's training, made once and kept in ``folder``."""
    named = hashlib.sha256(f"{problem} {steps} {data_dir}".encode()).hexdigest()[:12]
    path = folder / f"weights-{steps}-{named}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, **_train(problem, steps, data_dir))
    return load_arrays(path)


def _train(problem: Problem, steps: int, data_dir: Path | None) -> Arrays:
    model, optimizer = build_model(problem, layer), optax.adam(problem.learning_rate)
    state, (images, labels) = create_state(model, optimizer), draw_batches(problem, steps, data_dir)
    step = jax.jit(make_train_step(model, classification_loss, optimizer), donate_argnums=0)
    for k in trange(steps, desc="weights to measure at", unit="step"):
        state, _ = step(state, Examples(images[k], labels[k]))
    return named_arrays(state.params)


def draw_batches(problem: Problem, n: int, data_dir: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The first ``n`` training batches: images ``[n, batch, height, width, channels]`` and labels ``[n, batch]``.

    CIFAR-10 where ``data_dir`` holds it. Else scikit-learn's digits, each pixel of 8×8 repeated to a square until the
    image is as large as the model's, and grey repeated over the channels.
    """
    name = "digits" if data_dir is None else "cifar10"
    examples = load(name, "train", data_dir).examples
    batches = [train_batch(examples, problem.seed, k, problem.batch) for k in range(n)]
    images = np.stack([batch.images for batch in batches])
    if data_dir is None:
        images = enlarge(images, problem.image)
    return images, np.stack([batch.labels for batch in batches])


def enlarge(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Grey images ``[..., h, w, 1]`` with every pixel repeated, to ``[..., *shape]``; whole multiples only."""
    height, width, channels = shape
    rows, columns = height // images.shape[-3], width // images.shape[-2]
    if (rows * images.shape[-3], columns * images.shape[-2]) != (height, width):
        raise ValueError(f"images of {images.shape[-3:-1]} do not repeat to {height} × {width}")
    return images.repeat(rows, axis=-3).repeat(columns, axis=-2).repeat(channels, axis=-1)
