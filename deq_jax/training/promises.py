"""What a task promises, looked at before the first step: that its data belong together, and what its loss returns."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deq_jax.solution import Solution
from deq_jax.training.errors import UserError
from deq_jax.training.steps.batches import count, taken
from deq_jax.training.steps.model import require_unchanged
from deq_jax.training.task import Data, Examples, Outcome, Task, each

_TAKEN = frozenset({"kind", "step", "epoch", "loss", "seconds", "samples"})
"""Names of other things in a line of metrics.jsonl."""


def require_data(data: Any) -> None:
    """Raises UserError unless there is a training split, and all samples are of one form."""
    if not isinstance(data, Data) or not isinstance(data.splits, Mapping):
        raise UserError(
            f'task.data is {_named(data)}; expected training.Data({{"train": examples, "test": examples}}), where '
            f"examples are arrays with one row a sample."
        )
    splits = data.splits
    others = sorted(splits.keys() - {"train", "validation", "test"})
    if "train" not in splits or others:
        raise UserError(
            f"task.data has the splits {', '.join(splits) or 'none'}; "
            f'expected "train", and perhaps "validation" and "test".'
        )
    for name, examples in splits.items():
        _require_rows(name, examples)
    forms = {name: _form(taken(examples, np.arange(1))) for name, examples in splits.items()}
    for name, form in forms.items():
        if form != forms["train"]:
            raise UserError(
                f"a sample of the training split is {_listed(forms['train'])}, and one of the {name} split "
                f"{_listed(form)}; give both one form."
            )


def loss_of(task: Task, *, needs_functions: bool = False) -> Callable[[Any, Examples, Any], Outcome]:
    """The task's loss, which raises UserError where it returns something else than it has promised.

    `needs_functions` says that the cells at which penalties look are to be among it.
    """

    def loss(model: Any, examples: Examples, report: Any) -> Outcome:
        outcome = require_unchanged(model, lambda: task.loss(model, examples, report))
        _require_outcome(outcome, "loss", task, count(examples))
        if needs_functions and outcome.f is None:
            raise UserError(
                "penalty.weight needs the cell of an equilibrium, but the outcome of task.loss has no f.\n"
                "Return training.Outcome(..., f=lambda z: cell(z, x)), or leave penalty.weight at 0."
            )
        return outcome

    return loss


def evaluation_of(task: Task) -> Callable[[Any, Examples], Outcome]:
    """The task's evaluation, or its loss without a report where it has none; raises as `loss_of`'s does."""

    def evaluate(model: Any, examples: Examples) -> Outcome:
        if task.evaluate is None:
            outcome = task.loss(model, examples, each(task.equilibria, lambda: None))
        else:
            outcome = task.evaluate(model, examples)
        _require_outcome(outcome, "loss" if task.evaluate is None else "evaluate", task, count(examples))
        return outcome

    return evaluate


def _require_rows(split: str, examples: Examples) -> None:
    """Arrays, or sources, of one length."""
    leaves = {jax.tree_util.keystr(path) or "it": leaf for path, leaf in jax.tree.leaves_with_path(examples)}
    for name, leaf in leaves.items():
        if not hasattr(leaf, "__getitem__") or not hasattr(leaf, "__len__") or getattr(leaf, "shape", (1,)) == ():
            raise UserError(f'task.data.splits["{split}"] has {_named(leaf)} as {name}; expected arrays of samples.')
    lengths = {name: len(leaf) for name, leaf in leaves.items()}
    if len(set(lengths.values())) != 1 or not max(lengths.values()):
        said = ", ".join(f"{length:,} in {name}" for name, length in lengths.items()) or "nothing"
        raise UserError(
            f'task.data.splits["{split}"] holds {said}; expected as many samples in each of its arrays, at least one.'
        )
    row = taken(examples, np.arange(1))
    if any(np.shape(leaf)[:1] != (1,) for leaf in jax.tree.leaves(row)):
        raise UserError(
            f'task.data.splits["{split}"] gave {_listed(_form(row))} for the rows np.arange(1); expected arrays '
            f"with as many rows as were asked for."
        )


def _require_outcome(outcome: Any, who: str, task: Task, batch: int) -> None:
    if not isinstance(outcome, Outcome):
        raise UserError(f"task.{who} returned {_named(outcome)}; expected a training.Outcome.")
    arrays = {"loss": outcome.loss, **{f'metrics["{name}"]': value for name, value in outcome.metrics.items()}}
    arrays |= {} if outcome.objective is None else {"objective": outcome.objective}
    for name, value in arrays.items():
        if jnp.shape(value) != (batch,) or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            raise UserError(
                f"task.{who} returned {_named(value)} as {name}; expected one floating-point number a sample, "
                f"[{batch}], not their mean."
            )
    if outcome.metrics.keys() != task.metrics.keys():
        raise UserError(
            f"task.{who} returned the metrics {_words(outcome.metrics)}, but task.metrics names "
            f'{_words(task.metrics)}; name the same in both, such as training.Task(..., metrics={{"error": ""}}).'
        )
    if task.metrics.keys() & _TAKEN:
        raise UserError(f"a metric cannot be called {_words(task.metrics.keys() & _TAKEN)}; choose another name.")
    _require_solves(outcome, who, task)


def _require_solves(outcome: Outcome, who: str, task: Task) -> None:
    """As many solutions as the task has equilibria, or none; as many cells, or none."""
    solution, f = outcome.solution, outcome.f
    if not isinstance(solution, Solution | tuple | None) or any(
        not isinstance(one, Solution) for one in outcome.solutions
    ):
        raise UserError(f"task.{who} returned {_named(solution)} as solution; expected what nn.DEQ returns.")
    solutions = len(outcome.solutions)
    if solutions not in (0, task.equilibria):
        raise UserError(
            f"task.{who} returned {solutions} solutions, but task.equilibria is {task.equilibria}; "
            f"say training.Task(..., equilibria={solutions})."
        )
    cells = 0 if f is None else len(f) if isinstance(f, tuple) else 1
    if cells not in (0, solutions):
        raise UserError(f"task.{who} returned {cells} cells as f and {solutions} as solution; give as many of both.")


def _form(examples: Examples) -> dict[str, str]:
    leaves = jax.tree.leaves_with_path(examples)
    return {jax.tree_util.keystr(path): f"{jnp.result_type(leaf)}{list(np.shape(leaf)[1:])}" for path, leaf in leaves}


def _listed(form: Mapping[str, str]) -> str:
    return " and ".join(f"{array} at {path}" if path else array for path, array in form.items()) or "nothing"


def _named(value: Any) -> str:
    """A value in words: an array by its type and shape, anything else by its type."""
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array {value.dtype}{list(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"


def _words(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
