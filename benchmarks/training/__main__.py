"""``python -m benchmarks.training``: set up the peers, run everyone side by side, print, write and draw."""

import dataclasses
import datetime
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from benchmarks.training import batches, exchange, reference, results
from benchmarks.training.exchange import Problem
from benchmarks.training.processes import ENTRIES, interpreters
from benchmarks.training.rounds import Measured, compete
from deq_jax.training.disk import environment


def main(
    out: Path = Path("benchmarks/results"),
    batch: int = 100,
    steps: int = 5,
    trained: int = 500,
    only: tuple[str, ...] = (),
    data_dir: Path | None = None,
    torch_python: str | None = None,
    limit: float = 1800.0,
) -> None:
    """Time one training step of the chapter's model, by deq_jax and by everyone else, in one interleaved run.

    Args:
        out: where to write training.json and training.png.
        batch: images a step.
        steps: timed steps of each contestant from each of the weights, one a round; a further one, first, compiles.
        trained: measure also at deq_jax's weights after so many steps, which are made once; 0 for the initial ones
            alone.
        only: names of the contestants to run; all by default.
        data_dir: where TFDS has prepared CIFAR-10; scikit-learn's digits, enlarged, by default.
        torch_python: the interpreter for PyTorch's environment; by default the first that has wheels.
        limit: seconds after which a contestant that does not answer is out.
    """
    unknown = set(only) - {entry.name for entry in ENTRIES}
    if unknown:
        names = ", ".join(entry.name for entry in ENTRIES)
        raise SystemExit(f"no such contestant: {', '.join(sorted(unknown))}; there are {names}")
    entries = [entry for entry in ENTRIES if not only or entry.name in only]
    pythons, missing = interpreters(entries, torch_python)
    skipped = {entry.name: missing[entry.environment] for entry in entries if entry.environment in missing}
    problem = Problem(batch=batch)
    with tempfile.TemporaryDirectory() as folder:
        weights = {exchange.INITIAL: batches.draw_weights(problem)}
        if trained:
            weights[f"{trained} steps"] = batches.trained_weights(problem, trained, data_dir)
        images, labels = batches.draw_batches(problem, steps, data_dir)
        exchange.write(Path(folder), problem, weights, images, labels)
        present = [entry for entry in entries if entry.environment in pythons]
        found, failed = compete(present, pythons, Path(folder), weights=list(weights), steps=steps, limit=limit)
    print("solving in float64 to 1e-10 …", flush=True)
    first = images[0], labels[0]
    truths = {name: reference.exact_gradient(problem, arrays, *first) for name, arrays in weights.items()}
    rows = [
        row._replace(
            accuracy=reference.accuracy(problem, weights[row.weights], *first, truths[row.weights], arrays)._asdict()
        )
        for row, arrays in found
    ]
    content = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "data": "digits" if data_dir is None else "cifar10",
        "steps": steps,
        "problem": dataclasses.asdict(problem),
        "truth": {
            name: {"residual": truth.residual, "evaluations": truth.evaluations} for name, truth in truths.items()
        },
        "environment": environment.describe(),
        "goals": {name: results.goals([row for row in rows if row.weights == name]) for name in weights},
        "skipped": skipped | failed,
    }
    report(rows, content, out)


def report(rows: Sequence[Measured], content: dict[str, Any], out: Path) -> None:
    """Print the table and the goals, and write ``training.json`` and ``training.png`` into ``out``."""
    problem, cores, data = content["problem"], content["cores"], content["data"]
    title = f"The chapter's model, {data}, batch {problem['batch']}, {cores} cores, {content['date'][:10]}"
    print(f"\n{title}; {content['steps']} rounds\n")
    for weights, goals in content["goals"].items():
        chosen = [row for row in rows if row.weights == weights]
        if chosen:
            print(f"Weights: {weights}\n\n{results.table(chosen)}\n")
        for line in goals:
            print(line)
        print()
    if rows:
        print(f"{results.FOOTNOTE}\n")
    for name, reason in content["skipped"].items():
        print(f"skipped {name}: {reason}")
    out.mkdir(parents=True, exist_ok=True)
    measured = [row._asdict() | {"median_seconds": row.median} for row in rows]
    (out / "training.json").write_text(json.dumps({**content, "contestants": measured}, indent=1) + "\n")
    if rows:
        results.draw(rows, title, out / "training.png")
    print(f"\nwrote {out / 'training.json'}" + (f" and {out / 'training.png'}" if rows else ""))


if __name__ == "__main__":
    tyro.cli(main)
