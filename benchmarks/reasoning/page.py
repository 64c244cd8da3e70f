"""The comparison's part of RESULTS.md, which `python -m benchmarks.report` leaves as it is."""

import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import sections


def put(results: Path, task: str, text: str, images: Sequence[Path]) -> None:
    """Write a task's tables and pictures into a page, in the place of those that it has."""
    links = [
        f"![{task}: {image.stem.removeprefix('reasoning-')}]({os.path.relpath(image, results.parent)})"
        for image in images
    ]
    command = f"```console\n$ python -m benchmarks.reasoning {task} --results\n```"
    sections.put(results, f"reasoning: {task}", "\n\n".join([text, *links, command]))
