"""What is trained, as a run sees it: data, and pure functions of a model and a batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from flax import nnx
from jaxtyping import Array, Float, Key, PyTree

from deq_jax.gradients.adjoint import Adjoint, Solver
from deq_jax.solution import Solution
from deq_jax.training.errors import UserError

Examples: TypeAlias = PyTree
"""Arrays with one leading axis of samples, such as the pair of inputs and targets."""
Function: TypeAlias = Callable[[PyTree], PyTree]


class Outcome(NamedTuple):
    """What a model makes of a batch, sample by sample; all arrays are ``[batch]``.

    Of a task of several equilibria ``solution`` and ``f`` are tuples, in one order.
    """

    loss: Float[Array, " batch"]
    """What a run reports, in training as in an evaluation; its mean is made small."""
    solution: Solution | tuple[Solution, ...] | None = None
    """What the solve has come to; None where nothing is solved."""
    f: Function | tuple[Function, ...] | None = None
    """The cell at the injection of this batch, ``z → f(z)``, for penalties and the spectral radius; None: neither."""
    metrics: Mapping[str, Float[Array, " batch"]] = {}
    """What is reported beside the loss, under the names of the task's ``metrics``."""
    objective: Float[Array, " batch"] | None = None
    """What training makes small where that is not the loss itself."""

    @property
    def solutions(self) -> tuple[Solution, ...]:
        """Those of all equilibria."""
        return _all(self.solution, Solution)

    @property
    def equilibria(self) -> tuple[tuple[Function, Solution], ...]:
        """The cells beside what their solves have come to; none where the cells are not given."""
        return () if self.f is None else tuple(zip(_all(self.f, Callable), self.solutions, strict=True))


class Data(NamedTuple):
    """Samples, and how a run speaks of them."""

    splits: Mapping[str, Examples]
    """``"train"``, and ``"test"`` where there is something to evaluate on. A pytree of arrays ``[n, ...]``, such as
    the pair of inputs and targets, of which a batch reads its rows alone, so that arrays mapped from a file will do;
    or a source: an object whose ``len()`` is the number of samples, and whose ``source[rows]`` gives the batch of these
    rows, an array of integers ``[batch]``. Where it has a method ``expect(rows)``, that is told of rows that will be
    asked for, a few batches before, to read them in the meantime. Where its ``is_endless`` is true, no sample comes
    twice in training: an epoch reads ``len()`` of them, and epoch e (0, 1, …) asks for rows from e · ``len()`` on."""
    name: str = "data"
    """What they are called."""
    unit: str = "samples"
    """What one of them is called, in the plural."""
    encoding: str | None = None
    """How the samples were stored, where that loses a little; None for plain arrays."""
    remedy: str = "Give the data that it was started with"
    """What to do when a run is continued on others."""
    classes: Sequence[str] | None = None
    """Names of the classes, in the order of their numbers; None where there are none, or nobody has named them."""
    about: Mapping[str, Any] = {}
    """What else tells them from others: JSON values, kept in ``environment.json`` among what it says of the data."""


class Result(NamedTuple):
    """What a run comes to: the first of the task's metrics, or the loss where it has none."""

    name: str
    unit: str
    is_best_at_its_largest: bool


class Task(NamedTuple):
    """What is trained: data, and pure functions, of which a run makes its programs."""

    data: Data
    """Samples to train and to evaluate on."""
    model: Callable[[Solver, Adjoint, nnx.Rngs], nnx.Module]
    """``(solver, adjoint, rngs)`` → a fresh model that solves in these ways, such as a class of models itself. It may
    hold parameters, batch statistics, and streams of random numbers, as dropout does."""
    loss: Callable[[Any, Examples, Any], Outcome]
    """``(model, batch, report)`` → the [`deq_jax.training.Outcome`][] of a training step. The report goes on to the
    layer that solves, and is None in an evaluation."""
    evaluate: Callable[[Any, Examples], Outcome] | None = None
    """``(model, batch)`` → the outcome of an evaluation; None: that of ``loss``."""
    augment: Callable[[Key[Array, ""], Examples], Examples] | None = None
    """``(key, batch)`` → the batch randomly changed, in training steps; None: it stays as it is."""
    metrics: Mapping[str, str] = {}
    """Names and units of an outcome's metrics, the run's result first; of a share, shown in percent, the unit is %."""
    equilibria: int = 1
    """Layers that solve. Where they are several, ``report`` is a tuple of so many, one for each: of None in an
    evaluation."""
    best: Literal["max", "min"] | None = None
    """Whether the run's result is best where it is largest or smallest, by which the best checkpoint is kept. None:
    largest of a share, whose unit is %, smallest of anything else, such as an error or the loss."""

    @property
    def result(self) -> Result:
        """The run's result.

        Raises:
            UserError: ``best`` is neither.
        """
        if self.best not in (None, "max", "min"):
            raise UserError(f'task.best is {self.best!r}; expected "max", "min" or None.')
        name, unit = next(iter(self.metrics.items()), ("loss", ""))
        return Result(name, unit, unit == "%" if self.best is None else self.best == "max")


def each[T](equilibria: int, make: Callable[[], T]) -> T | tuple[T, ...]:
    """One of a kind for the equilibrium, or a tuple where they are several or none, in the form of a loss's report."""
    return make() if equilibria == 1 else tuple(make() for _ in range(equilibria))


def _all(one_or_several: Any, kind: Any) -> tuple:
    if one_or_several is None:
        return ()
    return (one_or_several,) if isinstance(one_or_several, kind) else tuple(one_or_several)
