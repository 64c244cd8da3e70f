"""Real training processes, small and quick, and what must hold of whatever is left of them."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FIELDS = {
    "epochs": "12",
    "batch-size": "180",
    "model.channels": "8",
    "model.inner-channels": "8",
    "model.num-groups": "2",
    "model.pool": "4",
    "solver.max-iter": "4",
    "solver.m": "3",
    "evaluation.radius-images": "0",
    "checkpoint-minutes": "1e-6",
}
"""Twelve epochs of seven steps on the digits, with a checkpoint after every step."""
SECONDS = float(os.environ.get("FAULTS_SECONDS", "180"))
"""After which a process is taken to hang."""


def environment(cache: Path, **changes: str) -> dict[str, str]:
    """For a process on one core, whose programs are compiled quickly, and once for all."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        **changes,
    }


def command(out: Path, **changes: str) -> list[str]:
    """What trains into a folder; changes are fields with _ for -, and __ for a dot."""
    fields = FIELDS | {name.replace("__", ".").replace("_", "-"): value for name, value in changes.items()}
    given = [word for name, value in fields.items() for word in (f"--{name}", value)]
    return [sys.executable, str(ROOT / "train.py"), "digits", "--out", str(out), *given]


class Process:
    """A training, and all that it says; started by a shell where the words of `before` are to come first."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], log: Path, redirected: str = "") -> None:
        self.log = log
        file: Any = log.open("wb")
        if redirected == "unread":
            file = _full_pipe()
            log.touch()
        elif redirected:
            quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
            words = ["sh", "-c", f"exec {quoted} {redirected}"]
        self.process = subprocess.Popen(
            words, env=dict(env), cwd=ROOT, stdout=file, stderr=file, stdin=subprocess.DEVNULL
        )
        os.close(file) if isinstance(file, int) else file.close()

    def wait(self, seconds: float = SECONDS) -> int:
        """Its exit status; −999 where it hangs, and is killed."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return -999

    def said(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")


def _full_pipe() -> int:
    """The end to write to of a pipe that is full, and whose reader is there and never reads."""
    _, writer = os.pipe()  # the other end stays open, here
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    return writer


def wait_for_steps(process: Process, out: Path, steps: int, seconds: float = SECONDS) -> bool:
    """Whether the run has written so many lines before it ended."""
    end, path = time.monotonic() + seconds, out / "metrics.jsonl"
    while time.monotonic() < end and process.process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= steps:
            return True
        time.sleep(0.005)
    return False


def lines(out: Path) -> list[dict]:
    """The run's account, as strict as JSON is, without times and the checksum of them."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "step_seconds", "crc32")
    return [{name: value for name, value in line.items() if name not in timed} for line in found]


def problems(out: Path, process: Process, status: int, whole: Sequence[dict], told: str) -> list[str]:
    """What is wrong with a run that has been continued to its end after faults; nothing is expected.

    ``told`` is what its processes have said, from the first to this last one.
    """
    said, wrong = process.said(), []
    if "Traceback" in said:
        wrong.append("a traceback")
    if status != 0:
        wrong.append(f"status {status}: {said.strip().splitlines()[-1:] or 'silent'}")
        return wrong
    try:
        account = lines(out)
    except (OSError, ValueError) as error:
        return [*wrong, f"its account cannot be read: {error}"]
    known = {(line["kind"], line["step"]): line for line in whole}
    ours = {(line["kind"], line["step"]): line for line in account}
    if len(ours) != len(account):
        wrong.append("lines are there twice")
    others = [key for key, line in ours.items() if line != known.get(key)]
    if others:
        wrong.append(f"{len(others)} lines differ from those of an uninterrupted run, the first at {others[0]}")
    if known.keys() - ours.keys() and "lacks" not in told and "damaged" not in told:
        wrong.append("lines are missing without a word")
    return wrong
