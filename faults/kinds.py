"""The kinds of faults. Each is done to a training that has come so far, and says how the process may end by it."""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from faults.runs import Process

Fault = Callable[[Process, Path, random.Random], str | None]
"""Of the process, the run's folder, and what is random; gives what is wrong at once, if anything is."""


class Kind(NamedTuple):
    """A kind of fault."""

    name: str
    inject: Fault
    """Done to the living process and its folder."""
    statuses: tuple[int, ...] = ()
    """How the process may end by it; none: it is killed before what is left is looked at."""
    redirected: str = ""
    """What the shell that starts it does to its streams and limits."""
    env: Mapping[str, str] = types.MappingProxyType({})
    ends: bool = True
    """The process ends by it; else it is to go on, and is stopped a little later."""
    is_lost: bool = False
    """The folder is no longer the run's own, which is to notice, and to write nothing more."""


def sent(number: int) -> Fault:
    """A signal."""
    return lambda process, out, rng: process.process.send_signal(number)


def nothing(process: Process, out: Path, rng: random.Random) -> None:
    """What is wrong is how the process was started."""


def while_saving(process: Process, out: Path, rng: random.Random) -> None:
    """Killed in the midst of a save."""
    end = time.monotonic() + 20
    while time.monotonic() < end and process.process.poll() is None:
        if any("tmp" in entry.name for entry in (out / "checkpoints").glob("*")):
            break
    process.process.kill()


def stopped_for_a_while(process: Process, out: Path, rng: random.Random) -> None:
    """Ctrl-Z, and fg."""
    process.process.send_signal(signal.SIGSTOP)
    time.sleep(rng.uniform(0.1, 1.0))
    process.process.send_signal(signal.SIGCONT)


def damaged(pattern: str) -> Fault:
    """The process is killed; a file of these is cut, has a bit flipped, is filled with zeros, emptied, or removed."""

    def inject(process: Process, out: Path, rng: random.Random) -> None:
        process.process.kill()
        process.wait()
        files = [path for path in sorted(out.glob(pattern)) if path.is_file()]
        if files:
            damage(rng.choice(files), rng)

    return inject


def damage(path: Path, rng: random.Random) -> None:
    """One of five."""
    content, how = path.read_bytes(), rng.choice(["cut", "flip", "zeros", "empty", "remove"])
    if how == "remove":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: rng.randrange(len(content) + 1)])
    elif how == "flip" and content:
        place = rng.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
    else:
        path.write_bytes(bytes(len(content)) if how == "zeros" else b"")


def newest_checkpoint(process: Process, out: Path, rng: random.Random) -> None:
    """The process is killed, and a file of its newest checkpoint damaged."""
    process.process.kill()
    process.wait()
    steps = sorted((path for path in (out / "checkpoints").glob("*") if path.name.isdigit()), key=lambda p: int(p.name))
    if len(steps) > 1:  # of a single one nothing would be left to go on from
        damage(rng.choice([path for path in sorted(steps[-1].rglob("*")) if path.is_file()]), rng)


def newest_seal(process: Process, out: Path, rng: random.Random) -> None:
    """The process is killed, and a bit of its newest checkpoint's seal flipped."""
    process.process.kill()
    process.wait()
    steps = sorted((path for path in (out / "checkpoints").glob("*") if path.name.isdigit()), key=lambda p: int(p.name))
    if len(steps) > 1:
        seal = steps[-1] / "seal.json"
        content, place = bytearray(seal.read_bytes()), rng.randrange(8 * seal.stat().st_size)
        content[place // 8] ^= 1 << place % 8
        seal.write_bytes(content)


def limited(limit: int, value: Callable[[Path], int]) -> Fault:
    """A limit of the living process is lowered, as a full disk or a busy machine would."""
    return lambda process, out, rng: _lower(process, limit, value(out))


def little_memory(process: Process, out: Path, rng: random.Random) -> None:
    """It may have a little more than it has; not less, or Python's threads may hang where they begin."""
    with contextlib.suppress(OSError):
        pages = int(Path(f"/proc/{process.process.pid}/statm").read_text().split()[0])
        _lower(process, resource.RLIMIT_AS, pages * resource.getpagesize() + rng.randrange(1 << 25))


def _lower(process: Process, limit: int, soft: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        _, hard = resource.prlimit(process.process.pid, limit)
        resource.prlimit(process.process.pid, limit, (soft, hard))


def log_size(out: Path) -> int:
    """Just what metrics.jsonl holds: not a line more can be written."""
    return (out / "metrics.jsonl").stat().st_size


def read_only(process: Process, out: Path, rng: random.Random) -> None:
    """Files and folders that cannot be written to; a folder in a file's place for root, who may write anywhere."""
    target = rng.choice([out / "checkpoints", out])
    if os.geteuid():
        target.chmod(0o500)
        process.wait()
        target.chmod(0o700)
    else:
        (out / ".curves.png").mkdir(exist_ok=True)
        process.process.kill()


def removed(process: Process, out: Path, rng: random.Random) -> None:
    """The whole folder."""
    shutil.rmtree(out, ignore_errors=True)


def lock_removed(process: Process, out: Path, rng: random.Random) -> None:
    """The lock alone."""
    (out / ".lock").unlink(missing_ok=True)


def replaced(process: Process, out: Path, rng: random.Random) -> None:
    """Another folder in its place, as a run begun anew there would make it."""
    out.rename(out.with_name(out.name + "-moved"))
    out.mkdir()
    (out / ".lock").touch()


def checkpoints_removed(process: Process, out: Path, rng: random.Random) -> None:
    """All checkpoints of a run that was killed: it begins anew, and says so."""
    process.process.kill()
    process.wait()
    shutil.rmtree(out / "checkpoints")


def second_process(process: Process, out: Path, rng: random.Random) -> str | None:
    """Another training is started in the same folder, and is to be refused."""
    words = process.process.args
    other = subprocess.run(words, capture_output=True, text=True, env=process_env(process), check=False)
    is_over = process.process.poll() is not None  # then there was none to be refused by
    process.process.kill()
    is_refused = other.returncode == 2 and "another process is training" in other.stderr
    return None if is_refused or is_over else f"the second is not refused: {other.returncode} {other.stderr[-200:]}"


def process_env(process: Process) -> dict[str, str]:
    """The environment of a living process."""
    content = Path(f"/proc/{process.process.pid}/environ").read_bytes()
    return dict(item.decode(errors="surrogateescape").split("=", 1) for item in content.split(b"\0") if item)


KILLED = (-signal.SIGKILL,)
KINDS = [
    Kind("SIGKILL", sent(signal.SIGKILL), KILLED),
    Kind("SIGKILL while saving", while_saving, (*KILLED, 0)),
    Kind("SIGTERM", sent(signal.SIGTERM), (143, 0)),
    Kind("SIGINT", sent(signal.SIGINT), (130, 0)),
    Kind("SIGHUP", sent(signal.SIGHUP), (129, 0)),
    Kind("SIGSTOP, SIGCONT", stopped_for_a_while, ends=False),
    Kind("newest checkpoint damaged", newest_checkpoint, KILLED),
    Kind("newest seal, a bit flipped", newest_seal, KILLED),
    Kind("metrics.jsonl damaged", damaged("metrics.jsonl"), KILLED),
    Kind("environment.json damaged", damaged("environment.json"), KILLED),
    Kind("event file damaged", damaged("events.*"), KILLED),
    Kind("checkpoints removed", checkpoints_removed, KILLED),
    Kind("disk full for the log", limited(resource.RLIMIT_FSIZE, log_size), (2,)),
    Kind("disk full for checkpoints", limited(resource.RLIMIT_FSIZE, lambda out: log_size(out) + 600), (2, 0)),
    Kind("no file handles left", limited(resource.RLIMIT_NOFILE, lambda out: 8), (2, 0)),
    Kind("no memory left", little_memory, (2, 1, -6, -11)),
    Kind("cannot be written to", read_only, (2, 0, *KILLED)),
    Kind("stderr closed", nothing, ends=False, redirected="2>&-"),
    Kind("stdout closed", nothing, ends=False, redirected=">&-"),
    Kind("all streams closed", nothing, ends=False, redirected="<&- >&- 2>&-"),
    Kind("stdout full", nothing, ends=False, redirected=">/dev/full"),
    Kind("output not read", nothing, ends=False, redirected="unread"),
    Kind("clock that jumps", nothing, ends=False),
    Kind(
        "no home, no words",
        nothing,
        ends=False,
        env={"HOME": "", "LC_ALL": "C", "MPLBACKEND": "none", "PYTHONUTF8": "0"},
    ),
    Kind("second process", second_process, KILLED),
    Kind("folder removed", removed, (2,), is_lost=True),
    Kind("lock removed", lock_removed, (2, 0), is_lost=True),
    Kind("folder replaced", replaced, (2,), is_lost=True),
    Kind("power lost", sent(signal.SIGKILL), KILLED),
]
