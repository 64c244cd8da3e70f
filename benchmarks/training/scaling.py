"""How a training step's time grows with the batch: ``python -m benchmarks.training.scaling``.

The chapter's model at its first weights, on batches that hold the same images again and again, so that every batch
takes the same evaluations. What is left is the cost of an image.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from benchmarks.training import batches, exchange
from benchmarks.training.contestants import ours
from benchmarks.training.contestants.jax_model import JaxContestant
from benchmarks.training.exchange import INITIAL, Problem


def main(
    sizes: tuple[int, ...] = (25, 50, 100, 200, 400),
    steps: int = 5,
    data_dir: Path | None = None,
    out: Path = Path("benchmarks/results"),
) -> None:
    """Time steps of every size in turns, print milliseconds an image, and write ``training_scaling.json``.

    Args:
        sizes: images a batch; the smallest must divide the others.
        steps: timed steps of each size; the median counts.
        data_dir: where TFDS has prepared CIFAR-10; scikit-learn's digits, enlarged, by default.
        out: where to write.
    """
    contestants = {size: build(size, min(sizes), data_dir) for size in sizes}
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(steps):
        for size, contestant in contestants.items():
            contestant.reset()
            started = time.perf_counter()
            contestant.step(0)
            seconds[size].append(time.perf_counter() - started)
    images = {size: 1e3 * statistics.median(times) / size for size, times in seconds.items()}
    middle = statistics.median(images.values())
    print("images a batch   ms an image   against the median")
    for size, cost in images.items():
        print(f"{size:14}{cost:14.2f}{cost / middle - 1:+20.1%}")
    print(f"the dearest against the cheapest: {max(images.values()) / min(images.values()) - 1:+.0%}; the goal is +15%")
    out.mkdir(parents=True, exist_ok=True)
    (out / "training_scaling.json").write_text(json.dumps({"seconds": seconds, "ms_an_image": images}, indent=1) + "\n")


def build(size: int, unit: int, data_dir: Path | None) -> JaxContestant:
    """A contestant, compiled, whose one batch of ``size`` images repeats the first ``unit``."""
    if size % unit:
        raise SystemExit(f"{size} images are no multiple of {unit}, the smallest batch")
    problem = Problem(batch=unit)
    images, labels = (np.concatenate([a] * (size // unit), axis=1) for a in batches.draw_batches(problem, 1, data_dir))
    with tempfile.TemporaryDirectory() as folder:
        weights = {INITIAL: batches.draw_weights(problem)}
        exchange.write(Path(folder), dataclasses.replace(problem, batch=size), weights, images, labels)
        contestant = ours.build(Path(folder))
    contestant.step(0)
    return contestant


if __name__ == "__main__":
    tyro.cli(main)
