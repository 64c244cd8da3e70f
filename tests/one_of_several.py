"""One process of a run of several: python -m tests.one_of_several FOLDER [--epochs N] [--seed N] [--slow]."""

import sys
import time

from deq_jax import training
from tests.own_task import QUICK, own_task

if __name__ == "__main__":
    folder, *rest = sys.argv[1:]
    changes = {rest[i].removeprefix("--"): int(rest[i + 1]) for i in range(0, len(rest) - 1, 2)}
    if "slow" in changes:  # as a larger model is: time for something to happen in the middle
        seconds = changes.pop("slow")
        import deq_jax.training.plan as plan

        whole = plan.Plan.batch
        plan.Plan.batch = lambda self, step: (time.sleep(seconds / 10), whole(self, step))[1]
    try:
        run = training.fit(own_task(), out=folder, quiet=True, **(QUICK | changes))
    except training.UserError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"step {run.step}\n")
