"""Where a run's checkpoints lie, a folder a step, and what becomes of those that are in the way."""

import json
from pathlib import Path

from etils import epath

from deq_jax.training.disk.files import set_aside, writing_to
from deq_jax.training.errors import UserError

KEPT_ASIDE = 3
"""Folders that were set aside and stay, the newest."""
_ASIDE = ("damaged", "unfinished", "diverged")


def place_of(run: Path) -> epath.Path:
    """The folder of a run's checkpoints: its own, or the one that its config.json names."""
    try:
        elsewhere = json.loads((run / "config.json").read_text(encoding="utf-8")).get("checkpoint_dir")
    except (OSError, ValueError, AttributeError, RecursionError):
        elsewhere = None
    return epath.Path(elsewhere) if isinstance(elsewhere, str) and elsewhere else epath.Path(run / "checkpoints")


def folder_of(run: Path, step: int) -> epath.Path:
    """Where the checkpoint of a step lies."""
    return place_of(run) / str(step)


def steps_of(run: Path) -> list[int]:
    """The steps that there are checkpoints of, in order.

    Raises:
        UserError: a file is in the place of their folder.
    """
    place = place_of(run)
    if place.exists() and not place.is_dir():
        raise UserError(f"{place} is a file, not a folder of checkpoints; move it away.")
    return sorted(int(entry.name) for entry in place.iterdir() if _is_step(entry.name)) if place.is_dir() else []


def latest_before(run: Path, step: int) -> int | None:
    """The step of the latest checkpoint before another step; None where there is none."""
    return max((earlier for earlier in steps_of(run) if earlier < step), default=None)


def set_aside_after(run: Path, step: int, why: str = "damaged") -> None:
    """Renames the checkpoints of later steps, so that `restore` passes over them and they can be saved anew.

    What has no seal was not finished, whatever else is `why`. Only the last few of those set aside are kept.
    """
    place = place_of(run)
    with writing_to(run):
        for later in steps_of(run):
            if later > step:
                folder = place / str(later)
                word = why if (folder / "seal.json").exists() else "unfinished"
                set_aside(folder, f"{word}-{later}-{{}}")
        if place.is_dir():
            aside = [entry for entry in place.iterdir() if entry.name.startswith(tuple(f"{w}-" for w in _ASIDE))]
            for oldest in sorted(aside, key=lambda entry: entry.stat().mtime)[:-KEPT_ASIDE]:
                oldest.rmtree()


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit()
