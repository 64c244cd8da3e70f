"""A training whose clock jumps: python clock.py SEED train.py ARGUMENTS. A day forth or back, at any time."""

import random
import runpy
import sys
import time


def jumping(seed: int) -> None:
    """From here on `time.time` jumps."""
    now, rng, offset = time.time, random.Random(seed), [0.0]

    def later() -> float:
        if rng.random() < 0.05:
            offset[0] += rng.choice([-86_400.0, 86_400.0, 3e8, -3e8])
        return max(now() + offset[0], 1.0)

    time.time = later


if __name__ == "__main__":
    jumping(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
