"""environment.json: what ran, on what."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deq_jax.training.disk.files import write_atomically, writing_to
from deq_jax.training.steps.batches import count, taken
from deq_jax.training.task import Data

_PACKAGES = ("deq_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")


def describe() -> dict[str, Any]:
    """Versions, devices, commit, platform and command line of this process."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpu_count": _usable_cores(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "git": _git(),
    }


def describe_data(data: Data) -> dict[str, Any]:
    """What tells these data from others: numbers of samples, how they were stored, and a digest of all arrays.

    Of a source, which may be larger than memory, there is no digest. What the data say of themselves comes first.
    """
    digest = hashlib.sha256()
    leaves = jax.tree.leaves([data.splits[name] for name in ("train", "test") if name in data.splits])
    arrays = [leaf for leaf in leaves if isinstance(leaf, np.ndarray | jax.Array)]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return {
        **data.about,
        f"training_{data.unit}": count(data.splits["train"]),
        f"test_{data.unit}": count(data.splits["test"]) if "test" in data.splits else 0,
        "encoding": data.encoding,
        "digest": digest.hexdigest() if arrays else None,
    }


def describe_samples(data: Data) -> dict[str, Any]:
    """What the model was made for: the shape of every array of a sample, and the classes where they have names."""
    row = taken(data.splits["train"], np.arange(1))
    arrays = jax.tree_util.tree_leaves_with_path(row)
    shapes = {jax.tree_util.keystr(path, simple=True, separator="."): list(np.shape(leaf)[1:]) for path, leaf in arrays}
    return {"sample": shapes} | ({} if data.classes is None else {"classes": list(data.classes)})


def starts(run: Path) -> list[dict[str, Any]]:
    """What environment.json knows of a run's start and of its resumptions, as far as it is what it should be."""
    try:
        first = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(first, dict):
        return []
    resumed = first.get("resumed")
    known = [first, *(resumed if isinstance(resumed, list) else [])]
    return [
        {name: value for name, value in start.items() if _is_fit(name, value)}
        for start in known
        if isinstance(start, dict)
    ]


def latest(run: Path) -> dict[str, Any]:
    """What is known of a run's start and, going before it, of its resumptions; nothing where that is damaged."""
    known: dict[str, Any] = {}
    for start in starts(run):
        known |= start
    return known


def write(path: Path, description: dict[str, Any], *, is_anew: bool) -> None:
    """Writes the description of a run's first start; those of later starts are added to its list "resumed".

    A start anew, from step 0, is a first one: those before it have led to nothing.
    """
    known = [] if is_anew else starts(path.parent)
    first, *resumed = [*known, description]
    with writing_to(path.parent):
        write_atomically(path, json.dumps({**first, "resumed": resumed}, indent=2) + "\n")


def changes_since(known: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What a result depends on to the last bit, and is other than it was: both values, by what they are called."""
    versions = known.get("packages", {}).get("jaxlib"), _version("jaxlib")
    now = {
        "cores": (known.get("cpu_count"), _usable_cores()),
        "processor": (known.get("cpu"), _cpu()),
        "devices": (known.get("devices"), [device.device_kind for device in jax.devices()]),
        "jaxlib": versions,
    }
    return {name: values for name, values in now.items() if values[0] is not None and values[0] != values[1]}


def _is_fit(name: str, value: Any) -> bool:
    """Whether a value that is read again is of its type; others are for the user alone."""
    if name == "data":
        return isinstance(value, dict) and all(
            type(one) is int if key.startswith(("training_", "test_")) else True for key, one in value.items()
        )
    if name == "sample":
        return isinstance(value, dict) and all(
            isinstance(shape, list) and all(type(side) is int and 0 < side < 2**31 for side in shape)
            for shape in value.values()
        )
    if name == "classes":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if name in ("steps", "cpu_count"):
        return type(value) is int and 0 < value < 2**31
    return name != "resumed" and (name != "packages" or isinstance(value, dict))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _usable_cores() -> int | None:
    """The cores that this process may use: fewer than the machine's where it was started so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu() -> str | None:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else None


def _git() -> dict[str, Any] | None:
    """Commit of the sources and whether they differ from it; None where they are not in a git checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    commit, changes = _git_output(root, "rev-parse", "HEAD"), _git_output(root, "status", "--porcelain")
    return {"commit": commit, "dirty": bool(changes)} if commit is not None else None


def _git_output(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
