"""Checkpoints of a run: saved whole or not at all, verified before they are believed."""

from deq_jax.training.disk.checkpoints.places import folder_of, latest_before, set_aside_after, steps_of
from deq_jax.training.disk.checkpoints.reading import Restored, restore
from deq_jax.training.disk.checkpoints.saving import KEPT, Writer, opened

__all__ = [
    "KEPT",
    "Restored",
    "Writer",
    "folder_of",
    "latest_before",
    "opened",
    "restore",
    "set_aside_after",
    "steps_of",
]
