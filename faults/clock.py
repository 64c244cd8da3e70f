"""A training whose clock jumps: python clock.py SEED train.py ARGUMENTS. A day forth or back, at any time."""

import random
import runpy
import sys
import time


def jumping(seed: int) -> None:
    """From here on `time.time` jumps, about once a second."""
    now, rng, offset, due = time.time, random.Random(seed), 0.0, time.monotonic()

    def later() -> float:
        nonlocal offset, due
        if time.monotonic() > due:
            offset += rng.choice([-86_400.0, 86_400.0, 3e8, -3e8])
            due = time.monotonic() + rng.expovariate(1.0)
        return max(now() + offset, 1.0)

    time.time = later


if __name__ == "__main__":
    jumping(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
