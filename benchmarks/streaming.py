"""``python -m benchmarks.streaming --data-dir DIR``: what it costs to decode every batch when its turn comes.

The same training in turns, its images held in memory and streamed, each in a process of its own. It prints seconds a
step, medians over rounds, of the steps after the first ones, waiting for a batch included; the losses of both must be
the same to the last bit.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro

from deq_jax.training.disk.metrics import read

WAYS = {"in memory": "yes", "streamed": "no"}
SETTLED = 10
"""Steps before those that are counted: the first of them meet cold caches."""


def main(
    preset: str = "cifar10-fast", data_dir: Path | None = None, steps: int = 110, rounds: int = 3, goal: float = 0.05
) -> None:
    """Print both ways' seconds a step, and their ratio.

    Args:
        preset: the training.
        data_dir: the folder of TFDS's data sets.
        steps: steps of each training.
        rounds: how often each way has its turn.
        goal: by how much streaming may be slower.
    """
    if steps <= SETTLED + 1 or rounds < 1:
        raise SystemExit(f"steps must be more than {SETTLED + 1} and rounds at least 1, got {steps} and {rounds}.")
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    losses = set()
    for round_ in range(rounds):
        for way in WAYS if round_ % 2 else reversed(WAYS):
            each, trained = _training(preset, data_dir, steps, WAYS[way])
            seconds[way].append(each)
            losses.add(trained)
    for way, each in seconds.items():
        print(f"{way}: {statistics.median(each):.4f} s a step ({min(each):.4f} to {max(each):.4f})")
    ratios = [streamed / held for held, streamed in zip(*seconds.values(), strict=True)]
    print(
        f"streamed / in memory: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), median of "
        f"{rounds} rounds; the goal is {1 + goal:g}"
    )
    print(f"losses of all trainings: {'the same' if len(losses) == 1 else 'NOT the same'}, to the last bit")


def _training(preset: str, data_dir: Path | None, steps: int, in_memory: str) -> tuple[float, tuple[float, ...]]:
    """Seconds a step of a training, and its losses."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        options = ["--out", str(out), "--max-steps", str(steps), "--data.in-memory", in_memory, "--quiet"]
        if data_dir is not None:
            options += ["--data-dir", str(data_dir)]
        done = subprocess.run([sys.executable, "train.py", preset, *options], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{preset} with --data.in-memory {in_memory} ended with {done.returncode}: {done.stderr}")
        lines = [line for line in read(out / "metrics.jsonl") if line["kind"] == "train"]
    first, last = lines[SETTLED - 1], lines[-1]
    each = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    return each, tuple(line["loss"] for line in lines)


if __name__ == "__main__":
    tyro.cli(main)
