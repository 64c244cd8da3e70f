"""One run that suffers one fault after another, each start being the next one's victim, until it is finished."""

import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from faults import power
from faults.kinds import Kind
from faults.runs import ROOT, Process, command, problems, wait_for_steps

_MORE_STEPS = 6
_TERMINATED = (143, 0)


class Suffered(NamedTuple):
    """A fault that was injected, and what is wrong after it; nothing is expected."""

    kind: str
    wrong: list[str]


def episode(
    folder: Path, kinds: Sequence[Kind], seed: int, env: Mapping[str, str], whole: Sequence[dict]
) -> list[Suffered]:
    """Injects the faults in this order, as far as the run goes, continues it to its end, and looks at what is there."""
    rng, out, suffered = random.Random(seed), folder / "run", []
    folder.mkdir(parents=True)
    for number, kind in enumerate(kinds):
        shadow = folder / f"shadow-{number}"
        process = _started(kind, out, shadow, folder / f"{number}.log", env, rng)
        done = _lines(out)
        if not wait_for_steps(process, out, done + rng.randint(1, _MORE_STEPS)):
            status = process.wait()
            if status == 0:
                break  # the run is finished
            before = suffered[-1].wrong if suffered else []
            before.append(f"the next start ends with {status}: {process.said().strip().splitlines()[-2:]}")
            suffered.append(Suffered(kind.name, before if not suffered else []))
            break
        suffered.append(Suffered(kind.name, _injected(kind, process, out, shadow, rng)))
    process = Process(command(out), env, folder / "last.log")
    status = process.wait()
    told = "\n".join(log.read_text(errors="replace") for log in sorted(folder.glob("*.log")))
    wrong = problems(out, process, status, whole, told)
    if wrong and suffered:
        suffered[-1].wrong.extend(f"{one} (after {', '.join(one.kind for one in suffered)})" for one in wrong)
    return suffered


def _started(kind: Kind, out: Path, shadow: Path, log: Path, env: Mapping[str, str], rng: random.Random) -> Process:
    words = command(out)
    if kind.name == "power lost":
        shadow.mkdir()
        words = [sys.executable, str(ROOT / "faults" / "power.py"), str(shadow), *words[1:]]
    elif kind.name == "clock that jumps":
        words = [sys.executable, str(ROOT / "faults" / "clock.py"), str(rng.randrange(1000)), *words[1:]]
    return Process(words, {**env, **kind.env}, log, kind.redirected)


def _injected(kind: Kind, process: Process, out: Path, shadow: Path, rng: random.Random) -> list[str]:
    at_once = kind.inject(process, out, rng)
    statuses = kind.statuses
    if not kind.ends:
        wait_for_steps(process, out, _lines(out) + 2)
        process.process.terminate()
        statuses = _TERMINATED
    status, wrong = process.wait(), [at_once] if at_once else []
    if status not in statuses and status != 0:
        wrong.append(f"status {status}: {process.said().strip().splitlines()[-2:]}")
    if "Traceback" in process.said():
        wrong.append("a traceback: " + process.said().strip().splitlines()[-1])
    if kind.is_lost and status == 2 and "no longer the folder" not in process.said():
        wrong.append("the loss of the folder is not said")
    moved = out.with_name(out.name + "-moved")
    if moved.exists():
        # What a save under way makes there is nothing whole, and in nobody's way.
        left = sorted(path.name for path in out.iterdir() if path.name not in (".lock", "checkpoints"))
        left += [str(path) for path in out.glob("checkpoints/*/seal.json")]
        if left and status == 2:
            wrong.append(f"written into another's folder: {left}")
        shutil.rmtree(out)
        moved.rename(out)
    if kind.name == "power lost":
        kept = out.with_name("kept")
        power.restored(out, shadow, kept)
        shutil.rmtree(out)
        kept.rename(out)
    return wrong


def _lines(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
