"""Injects faults into real trainings, prints how many each kind has survived, and the seed that repeats it.

python -m faults [--faults 300] [--seed N] [--workers 2] [--only trainings]
"""

import argparse
import collections
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faults.episodes import Suffered, episode
from faults.kinds import KINDS, Kind
from faults.runs import Process, command, environment, lines
from faults.settings import refused_commands, refused_configurations

_IN_A_RUN = 8


def dealt(number: int, rng: random.Random) -> Iterator[list[Kind]]:
    """So many faults, of every kind as many, in random order, in portions for one run each."""
    kinds = list(itertools.islice(itertools.cycle(KINDS), number))
    rng.shuffle(kinds)
    return (list(portion) for portion in itertools.batched(kinds, _IN_A_RUN))


def injected(number: int, seed: int, workers: int, folder: Path) -> list[Suffered]:
    """What has become of so many faults; a run that ends before its portion is done passes the rest on."""
    env = environment(folder / "programs")
    whole = Process(command(folder / "whole"), env, folder / "whole.log")
    if whole.wait() != 0:
        raise SystemExit(f"an undisturbed run fails:\n{whole.said()}")
    expected, rng = lines(folder / "whole"), random.Random(seed)
    suffered: list[Suffered] = []
    portions = list(dealt(number, rng))
    with ThreadPoolExecutor(workers) as pool:
        for turn in itertools.count():
            jobs = [
                pool.submit(episode, folder / f"{turn}-{k}", portion, rng.randrange(2**32), env, expected)
                for k, portion in enumerate(portions)
            ]
            left = []
            for k, (job, portion) in enumerate(zip(jobs, portions, strict=True)):
                done = job.result()
                suffered += done
                left += portion[len(done) :]
                if not any(one.wrong for one in done):
                    shutil.rmtree(folder / f"{turn}-{k}")
                for one in done:
                    for wrong in one.wrong:
                        print(f"  {one.kind}: {wrong}  [{folder / f'{turn}-{k}'}]", flush=True)
            print(f"  {len(suffered)} of {number}", flush=True)
            portions = [list(portion) for portion in itertools.batched(left, _IN_A_RUN)]
            if not portions or turn > 20:
                return suffered
    return suffered


def table(rows: Sequence[tuple[str, int, int]]) -> str:
    """Kind, injected, survived."""
    width = max(len(name) for name, *_ in rows)
    head = f"{'kind':{width}}  injected  survived"
    return "\n".join([head, *(f"{name:{width}}  {count:8}  {survived:8}" for name, count, survived in rows)])


def main(arguments: Sequence[str]) -> int:
    """The command line; 1 where something was not survived."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--workers", type=int, default=max(1, len(os.sched_getaffinity(0))))
    parser.add_argument("--only", choices=["settings", "trainings"])
    given = parser.parse_args(arguments)
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="faults-"))
    print(f"Seed {given.seed}; what goes wrong is kept in {folder}.", flush=True)
    rng = random.Random(given.seed)
    rows, wrong = [], []
    trials = {
        "bad command lines": lambda: refused_commands(rng),
        "bad configuration files": lambda: refused_configurations(rng, folder / "configuration"),
    }
    for name, trial in trials.items() if given.only != "trainings" else ():
        tried, refused, bad = trial()
        rows.append((name, tried, tried - len(bad)))
        wrong += bad
        print(f"  {name}: {tried} tried, {refused} refused, the others are none that cannot be meant", flush=True)
    for bad in wrong:
        print(f"  {bad}")
    suffered = injected(given.faults, given.seed, given.workers, folder) if given.only != "settings" else []
    counts = collections.Counter(one.kind for one in suffered)
    lost = collections.Counter(one.kind for one in suffered if one.wrong)
    rows += [(name, count, count - lost[name]) for name, count in sorted(counts.items())]
    print(table([*rows, ("all", sum(row[1] for row in rows), sum(row[2] for row in rows))]))
    print(f"{(time.monotonic() - began) / 60:.0f} minutes. To repeat it: python -m faults --seed {given.seed}")
    if not wrong and not lost:
        shutil.rmtree(folder)
    return 1 if wrong or lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
