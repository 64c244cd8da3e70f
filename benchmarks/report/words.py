"""How the pages on runs say numbers and circumstances."""

import statistics
from collections.abc import Sequence
from typing import Any


def mean_and_deviation(values: Sequence[float], digits: int = 2) -> str:
    """The mean ± the sample standard deviation, of several."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def ran_on(start: dict[str, Any]) -> str:
    """Sources and machine of one start of a run."""
    git = start.get("git")
    commit = "unknown commit" if git is None else git["commit"][:12] + (", with local changes" if git["dirty"] else "")
    devices = ", ".join(sorted(set(start["devices"])))
    cores = "1 CPU core" if start["cpu_count"] == 1 else f"{start['cpu_count']} CPU cores"
    machine = f"{cores} ({start.get('cpu') or start['platform']})" if devices == "cpu" else devices
    return f"commit {commit}; {machine}; jax {start['packages']['jax']}"
