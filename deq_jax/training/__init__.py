"""A run of any task: the loop, and what it sets, computes, leaves on disk and says.

``fit`` trains a task of your own, ``load`` reads a run. They are imported when first asked for, so that a command line
that needs neither answers at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deq_jax.training.errors import NonFiniteLossError, UserError
    from deq_jax.training.fitting import fit
    from deq_jax.training.loading import Run, load
    from deq_jax.training.settings.settings import Settings
    from deq_jax.training.task import Data, Outcome, Task

__all__ = ["Data", "NonFiniteLossError", "Outcome", "Run", "Settings", "Task", "UserError", "fit", "load"]

_HOMES = {
    "Data": "task",
    "NonFiniteLossError": "errors",
    "Outcome": "task",
    "Run": "loading",
    "Settings": "settings.settings",
    "Task": "task",
    "UserError": "errors",
    "fit": "fitting",
    "load": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
