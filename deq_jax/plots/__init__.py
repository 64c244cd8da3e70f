"""Pictures of solves and of runs, as functions: the same ones in notebooks and in a run's folder.

Needs matplotlib: ``pip install 'deq_jax[plots]'``. Importing ``deq_jax`` alone never imports it.
"""

try:
    import matplotlib as _  # noqa: F401
except ImportError as error:
    raise ImportError("deq_jax.plots needs matplotlib: pip install 'deq_jax[plots]'.") from error

from deq_jax.plots.classes import confusion
from deq_jax.plots.runs import curves, smoothed
from deq_jax.plots.solves import iterations, residuals
from deq_jax.plots.style import ADJOINT, COLORS, FORWARD

__all__ = ["ADJOINT", "COLORS", "FORWARD", "confusion", "curves", "iterations", "residuals", "smoothed"]
