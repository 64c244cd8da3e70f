"""What a run on images is made of, and what can be done with it."""

from deq_jax.tasks.images.config import located, settings_of
from deq_jax.tasks.images.task import OPENER, open_task
from deq_jax.tasks.room import Room

ROOM = Room(
    OPENER,
    open_task,
    smaller="--batch-size, --model.channels or --solver.m",
    next_steps=lambda config: ["predict {run} IMAGE...", "evaluate {run} --checkpoint best", "export {run} FILE"],
    settings_of=settings_of,
    located=located,
)
