"""What a run on blurred photographs is made of, and what can be done with it."""

from deq_jax.tasks.inverse.task import OPENER, open_task
from deq_jax.tasks.room import Room

ROOM = Room(
    OPENER,
    open_task,
    smaller="--batch-size, --data.side or --model.channels",
    next_steps=lambda config: ["evaluate {run} --tol 1e-5 --max-iter 400"],
)
