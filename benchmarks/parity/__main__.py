"""``python -m benchmarks.parity``: train both sides, compare them, print, write and draw."""

import dataclasses
import datetime
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import environments
from benchmarks.parity import comparison, our_side
from benchmarks.training import batches, exchange
from benchmarks.training.exchange import INITIAL, Problem
from deq_jax.training.disk import environment


def main(
    out: Path = Path("benchmarks/results"),
    data_dir: Path | None = None,
    steps: int = 150,
    seeds: int = 3,
    batch: int = 32,
    channels: int = 16,
    inner_channels: int = 24,
    torch_python: str | None = None,
) -> None:
    """Train the chapter's model by the chapter's code in PyTorch and by deq_jax, and compare outputs and losses.

    Both start from the same weights and read the same batches, in float32. The model's width and the batch are reduced
    so that it takes minutes; --batch 100 --channels 48 --inner-channels 64 is the chapter's size.

    Args:
        out: where to write parity.json and parity.png.
        data_dir: where TFDS has prepared CIFAR-10; scikit-learn's digits, enlarged, by default.
        steps: training steps, which the cosine of the rate spans.
        seeds: trainings, each of its own weights and order of images; at least 2.
        batch: images a step.
        channels: channels of the state.
        inner_channels: channels inside the cell.
        torch_python: the interpreter for PyTorch's environment; by default the first that has wheels.
    """
    if seeds < 2:
        raise SystemExit(f"--seeds must be at least 2, to have a spread over them, but is {seeds}")
    if steps < comparison.WINDOW:
        raise SystemExit(f"--steps must be at least {comparison.WINDOW}, the running mean's window, but is {steps}")
    try:
        python = environments.torch_peers(torch_python)
    except environments.UnavailableError as error:
        raise SystemExit(f"PyTorch's environment cannot be set up: {error}") from error
    sides = []
    for seed in range(seeds):
        problem = Problem(batch=batch, channels=channels, inner_channels=inner_channels, seed=seed)
        sides.append(train(problem, steps, data_dir, python))
        print(f"seed {seed}: first outputs differ by {sides[-1]['output_difference']:.1e}", flush=True)
    ours, chapter = (np.stack([side[name] for side in sides]) for name in ("ours", "chapter"))
    found = comparison.compare(ours, chapter)
    outputs = max(side["output_difference"] for side in sides)
    residual = max(max(side["residuals"]) for side in sides)
    same_outputs = f"first outputs, solved to residuals of {residual:.1e}, differ by {outputs:.1e} at most"
    same_losses = (
        f"losses of one seed, running means over {comparison.WINDOW} steps, differ by {found['gap']:.4f} on average"
    )
    goals = [
        f"{_verdict(outputs <= comparison.OUTPUT_GOAL)}: {same_outputs}; the goal is {comparison.OUTPUT_GOAL:g}",
        f"{_verdict(found['gap'] <= found['spread'])}: {same_losses}; the goal is their spread, {found['spread']:.4f}",
    ]
    print("\n".join(goals))
    content = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "data": "digits" if data_dir is None else "cifar10",
        "problem": dataclasses.asdict(problem),
        "goals": goals,
        "output_difference": [side["output_difference"] for side in sides],
        "output_residuals": [side["residuals"] for side in sides],
        **found,
        "window": comparison.WINDOW,
        "losses": {"deq_jax": ours.tolist(), "chapter": chapter.tolist()},
        "torch": sides[0]["torch"],
        "environment": environment.describe(),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "parity.json").write_text(json.dumps(content, indent=1) + "\n")
    title = f"The chapter's training, {channels} channels, batch {batch}, {content['data']}, {seeds} seeds"
    comparison.draw(ours, chapter, title, out / "parity.png")
    print(f"wrote {out / 'parity.json'} and {out / 'parity.png'}")


def train(problem: Problem, steps: int, data_dir: Path | None, python: Path) -> dict[str, Any]:
    """Both sides of one seed: losses ``[steps]``, and how far the first outputs lie apart."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, labels = batches.draw_batches(problem, steps, data_dir)
        exchange.write(folder, problem, {INITIAL: batches.draw_weights(problem)}, images, labels)
        command = [python, "-m", "benchmarks.parity.chapter_side", folder]
        subprocess.run(command, cwd=environments.ROOT, check=True)
        theirs = exchange.load_arrays(folder / "chapter.npz")
        logits, residual = our_side.first_outputs(folder)
        return {
            "ours": our_side.losses(folder),
            "chapter": theirs["losses"],
            "output_difference": comparison.output_difference(logits, theirs["logits"]),
            "residuals": [residual, float(theirs["residual"])],
            "torch": str(theirs["version"]),
        }


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


if __name__ == "__main__":
    tyro.cli(main)
