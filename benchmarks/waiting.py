"""What devices lose by waiting for the slowest sample: python -m benchmarks.waiting [RUN] [--picture FILE].

First, measured: a batch of 256 over 8 devices, of which one sample is hard. The cell counts its evaluations on every
device; one loop over the whole batch takes as many as its slowest sample. Then, simulated: batches drawn from the
evaluations that RUN, a trained run of images, runs/digits if not said, spends on its test split, on ever more devices,
32 samples each.

A step ends when the slowest device is done. What is lost is what the devices could have computed in that time and have
not: 1 − mean(needed) / time, in evaluations of a sample. What is made are the evaluations that a device is busy with.
"""

import argparse
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

DEVICES = 8
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

import deq_jax  # noqa: E402
from deq_jax.solvers.working_set import group_width  # noqa: E402

SAMPLES = 32
"""On each device."""
SIZES = (8, 64, 512, 4096)
DRAWS = 200
Times = Callable[[np.ndarray], np.ndarray]
"""Evaluations ``[steps, devices, samples]`` → the time of each device ``[steps, devices]``, in those of its batch."""


def measured() -> dict[str, list[int]]:
    """The evaluations that each of eight devices makes of its 32 samples, where the first has a hard one."""
    batch = DEVICES * SAMPLES
    gains = jnp.full((batch, 1), 0.3).at[0].set(0.97)
    x = jax.random.normal(jax.random.key(0), (batch, 16))
    mesh, counts = Mesh(jax.devices(), ("data",)), Counter[int]()

    def solve(x: jax.Array, gains: jax.Array) -> deq_jax.Solution:
        return deq_jax.forward_iteration(lambda z: gains * jnp.sin(z) + x, jnp.zeros_like(x), tol=1e-4, max_iter=500)

    def counted(x: jax.Array, gains: jax.Array) -> jax.Array:
        def cell(z: jax.Array) -> jax.Array:
            jax.debug.callback(lambda device: counts.update([int(device)]), jax.lax.axis_index("data"))
            return gains * jnp.sin(z) + x

        return deq_jax.forward_iteration(cell, jnp.zeros_like(x), tol=1e-4, max_iter=500).value

    mapped = jax.shard_map(counted, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    jax.block_until_ready(jax.jit(mapped)(x, gains))
    jax.effects_barrier()
    slowest = int(jax.jit(solve)(x, gains).iterations.max())
    return {"all in step": [slowest] * DEVICES, "each by itself": [counts[device] for device in range(DEVICES)]}


def in_step(evaluations: np.ndarray) -> np.ndarray:
    """All evaluate until the slowest of all samples is done."""
    return np.broadcast_to(evaluations.max((1, 2), keepdims=True)[..., 0], evaluations.shape[:2])


def each_by_itself(evaluations: np.ndarray) -> np.ndarray:
    """Each evaluates until its own slowest sample is done."""
    return evaluations.max(2)


def each_with_groups(evaluations: np.ndarray) -> np.ndarray:
    """Each evaluates all of its samples until half are done, and then the others in groups of like ones."""
    samples = evaluations.shape[2]
    width = group_width(samples) or samples
    ordered = np.sort(evaluations, 2)
    half = ordered[:, :, samples // 2 - 1]
    rest = ordered[:, :, samples // 2 :]
    slowest = rest.reshape(*rest.shape[:2], -1, width).max(3)
    return half + np.maximum(slowest - half[..., None], 0).sum(2) * width / samples


class Step(NamedTuple):
    """A step of many devices, on average."""

    time: float
    """In evaluations of a device's batch."""
    lost: float
    """The share of all devices' time that their samples did not need."""
    made: float
    """Evaluations of its batch that a device makes."""


def simulated(evaluations: np.ndarray, times: Times, devices: int, rng: np.random.Generator) -> Step:
    """Steps of batches that are drawn from these evaluations."""
    time, needed, made = [], [], []
    for _ in range(max(1, DRAWS * SIZES[0] // devices)):
        drawn = rng.choice(evaluations, (1, devices, SAMPLES))
        busy = times(drawn)
        time.append(busy.max())
        made.append(busy.mean())
        needed.append(drawn.mean())
    return Step(float(np.mean(time)), float(1 - np.mean(needed) / np.mean(time)), float(np.mean(made)))


def evaluations_of(run: Path) -> np.ndarray:
    """What a run's model spends on each image of its test split."""
    from deq_jax.predict import predictions
    from deq_jax.tasks.images.task import open_task
    from deq_jax.tasks.images.use.classifier import load

    classifier = load(run)
    images = open_task(classifier.config, ["test"]).data.splits["test"].images
    return np.array([said["evaluations"] for said in predictions(classifier, images, classifier.config.batch_size)])


FORMS: dict[str, Times] = {
    "all in step": in_step,
    "each by itself": each_by_itself,
    "each with a working set that shrinks": each_with_groups,
}


def draw(table: dict[str, list[Step]], path: Path) -> None:
    """Time lost, and evaluations made, over devices."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    lost, made = figure.subplots(1, 2)
    for (name, row), style in zip(table.items(), ("-", "--", "-"), strict=True):
        lost.semilogx(SIZES, [100 * step.lost for step in row], style, marker="o", base=2)
        made.semilogx(SIZES, [step.made for step in row], style, marker="o", base=2, label=name)
    for axes in (lost, made):
        axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
        axes.set(xlabel=f"devices, {SAMPLES} samples each", ylim=0)
    lost.set_ylabel("time lost to waiting, %")
    made.set_ylabel("evaluations a device makes")
    figure.legend(*made.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=150)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/digits"))
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    print(f"Evaluations of its {SAMPLES} samples by each of {DEVICES} devices, the first with a hard one:")
    for name, row in measured().items():
        print(f"  {name:36} {row}, {sum(row) * SAMPLES:,} of samples in all")
    if not given.run.exists():
        raise SystemExit(f"{given.run} is not there: name a run on images, or make this one by python train.py digits.")
    evaluations = evaluations_of(given.run)
    spread = ", ".join(f"{q:.0f}" for q in np.quantile(evaluations, (0, 0.5, 0.9, 1)))
    print(f"{given.run} spends {evaluations.mean():.1f} evaluations an image (least, median, 90%, most: {spread}).")
    print(
        f"Of a step, in evaluations of a device's {SAMPLES} samples: its time, the share lost of it, and what is made:"
    )
    table = {
        name: [simulated(evaluations, times, devices, np.random.default_rng(0)) for devices in SIZES]
        for name, times in FORMS.items()
    }
    print(f"  {'devices':36}" + "".join(f"{size:>18,}" for size in SIZES))
    for name, row in table.items():
        print(f"  {name:36}" + "".join(f"{f'{time:.1f}, {lost:.0%}, {made:.1f}':>18}" for time, lost, made in row))
    if given.picture:
        draw(table, given.picture)


if __name__ == "__main__":
    main()
