"""What is trained, as a run sees it: data, and pure functions of a model and a batch."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from flax import nnx
from jaxtyping import Array, Float, Key, PyTree

from deq_jax.adjoint import Adjoint, AdjointReport, Solver
from deq_jax.solution import Solution

Examples: TypeAlias = PyTree
"""Arrays with one leading axis of samples, such as the pair of inputs and targets."""


class Outcome(NamedTuple):
    """What a model makes of a batch, sample by sample."""

    loss: Float[Array, " batch"]
    """What a run reports, in training as in an evaluation."""
    solution: Solution
    """What the solve has come to."""
    f: Callable[[PyTree], PyTree] | None
    """The cell at the injection of this batch, z → f(z); None where nothing is solved."""
    metrics: Mapping[str, Float[Array, " batch"]] = {}
    """What is reported beside the loss, under the names of `Task.metrics`."""
    objective: Float[Array, " batch"] | None = None
    """What training makes small where that is not the loss itself."""


class Data(NamedTuple):
    """Samples in memory, and how a run speaks of them."""

    splits: Mapping[str, Examples]
    """"train" and "test", or the one of them that is evaluated."""
    name: str = "data"
    unit: str = "samples"
    encoding: str | None = None
    """How the samples were stored, where that loses a little; None for plain arrays."""
    remedy: str = "Give the data that it was started with"
    """What to do when a run is continued on others."""


class Task(NamedTuple):
    """A bundle of data and pure functions, of which the run makes its programs."""

    data: Data
    model: Callable[[Solver, Adjoint, nnx.Rngs], nnx.Module]
    """A fresh model that solves in these ways. It may hold parameters and batch statistics."""
    loss: Callable[[Any, Examples, AdjointReport], Outcome]
    """(model, batch, report) → outcome of a training step. The report goes on to the layer that solves."""
    evaluate: Callable[[Any, Examples], Outcome]
    """(model, batch) → outcome of an evaluation."""
    augment: Callable[[Key[Array, ""], Examples], Examples] | None = None
    """Random changes to the batch of a training step."""
    metrics: Mapping[str, str] = {}
    """Names and units of an outcome's metrics, the run's result first; of a share, shown in percent, the unit is %."""
