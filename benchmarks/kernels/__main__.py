"""``python -m benchmarks.kernels``: compile training steps for an H100, without one, and count what their loops do."""

import collections
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

from benchmarks import environments
from benchmarks.kernels.program import Loop, loops

INSIDE = "DEQ_JAX_COMPILES_FOR_H100"


def main(
    presets: tyro.conf.Positional[tuple[str, ...]] = (), batch: int = 100, devices: int = 1, text: Path | None = None
) -> None:
    """Print kernels by kind, traffic and temporary memory of every loop of the presets' training steps.

    Args:
        presets: of images; all of them by default.
        batch: images a step.
        devices: H100s that share the batch; of several, where they wait for one another is printed, too.
        text: where to leave the compiled program of the last one.
    """
    for preset in presets or _presets():
        began = time.perf_counter()
        compiled = _compiled(preset, batch, devices)
        seconds, memory = time.perf_counter() - began, compiled.memory_analysis().temp_size_in_bytes
        print(f"\n{preset}, batch {batch}: compiled in {seconds:.0f} s, temporary memory {memory / 1e6:.0f} MB")
        for line in table(list(loops(compiled.as_text()))):
            print(line)
        if devices > 1:
            print(met(compiled.as_text()))
        if text is not None:
            text.write_text(compiled.as_text())


def table(found: list[Loop]) -> Iterator[str]:
    """A line for each loop that starts kernels of its own."""
    yield "  kernels      MB   least   of it  kinds"
    for loop in found:
        if loop.kernels:
            kinds = ", ".join(f"{count} {kind}" for kind, count in loop.kernels.most_common())
            ratio = loop.moved / max(loop.least, 1)
            yield (
                f"  {'· ' * loop.depth}{loop.kernels.total():<5} {loop.moved / 1e6:9.1f} {loop.least / 1e6:7.1f} "
                f"{ratio:6.2f}×  {kinds}"
            )


def met(text: str) -> str:
    """Where the devices wait for one another, in a line."""
    from deq_jax.training.devices.collectives import collectives

    found = collectives(text)
    once, in_loops = (
        ", ".join(f"{count} {kind}" for kind, count in collections.Counter(kinds).most_common()) or "none"
        for kinds in found
    )
    return f"  collectives: {once} in a step; in loops: {in_loops}"


def _presets() -> list[str]:
    from deq_jax.tasks.images.presets import PRESETS

    return [name for name, make in PRESETS.items() if make().data.source == "cifar10"]


def _compiled(preset: str, batch: int, devices: int) -> Any:
    from benchmarks.kernels import h100
    from benchmarks.kernels.steps import lowered

    return lowered(preset, batch, h100.mesh(devices)).compile()


def _again_inside() -> None:
    """The same command in the environment that has the compiler."""
    try:
        python = environments.h100()
    except environments.UnavailableError as error:
        raise SystemExit(f"there is no environment to compile for a GPU in: {error}") from error
    own = os.environ | {INSIDE: "1", "PYTHONPATH": str(environments.ROOT)}
    raise SystemExit(
        subprocess.run([python, "-m", "benchmarks.kernels", *sys.argv[1:]], env=own, check=False).returncode
    )


if __name__ == "__main__":
    if INSIDE in os.environ:
        tyro.cli(main)
    else:
        _again_inside()
