"""What a training run reads and how long it is, settled before its first step."""

from collections.abc import Mapping
from typing import NamedTuple

import optax
from flax import nnx

from deq_jax.training.errors import UserError
from deq_jax.training.promises import require_data
from deq_jax.training.settings.checks import WHOLE
from deq_jax.training.settings.settings import Settings
from deq_jax.training.steps.batches import count
from deq_jax.training.steps.division import divided
from deq_jax.training.steps.optimizer import build_optimizer
from deq_jax.training.steps.phases import Phase, phase_of
from deq_jax.training.steps.solving import evaluation_model
from deq_jax.training.steps.step import TrainState, create_state
from deq_jax.training.task import Examples, Task


class Plan(NamedTuple):
    """Task, settings, and the length of a run."""

    task: Task
    settings: Settings
    model: nnx.Module
    """Solved as in an evaluation."""
    optimizer: optax.GradientTransformation
    splits: Mapping[str, Examples]
    """The task's, of whose training split a part may have become "validation"."""
    steps_per_epoch: int
    last_step: int

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The splits that there are to evaluate on, the one by which the run is judged first."""
        return tuple(split for split in ("validation", "test") if split in self.splits)

    @property
    def all_steps(self) -> int:
        """Steps of all epochs, which schedules span; the last step may come before."""
        return self.settings.epochs * self.steps_per_epoch

    def phase_of(self, step: int) -> Phase:
        """The phase of the `step`-th update, counted from 1."""
        return phase_of(self.settings, step - 1, self.all_steps)

    def epoch_of(self, step: int) -> int:
        """The epoch, from 1, that the `step`-th update belongs to."""
        return (step - 1) // self.steps_per_epoch + 1

    def ends_at(self, step: int) -> bool:
        """Whether an epoch or the run does."""
        return step > 0 and (step % self.steps_per_epoch == 0 or step >= self.last_step)

    def evaluates_at(self, step: int) -> bool:
        """Whether evaluations follow the `step`-th update; never where there is nothing to evaluate on."""
        every = self.settings.evaluation.every * self.steps_per_epoch
        return bool(self.evaluated) and step > 0 and (step % every == 0 or step >= self.last_step)


def prepare(task: Task, settings: Settings) -> tuple[Plan, TrainState]:
    """The plan, and the state before the first step.

    Raises:
        UserError: the data or the settings do not fit.
    """
    require_data(task.data)
    splits = divided(task.data, settings.validation.share, settings.seed)
    samples = count(splits["train"])
    steps_per_epoch = samples // settings.batch_size
    if not steps_per_epoch:
        raise UserError(f"batch_size {settings.batch_size} exceeds the {samples:,} training {task.data.unit}.")
    all_steps = settings.epochs * steps_per_epoch
    if all_steps > WHOLE:
        raise UserError(
            f"{settings.epochs:,} epochs are {all_steps:,} steps; there can be {WHOLE:,}. Give fewer epochs: "
            f"{WHOLE // steps_per_epoch:,} at most."
        )
    last_step = all_steps if settings.max_steps is None else min(all_steps, settings.max_steps)
    model = evaluation_model(task, settings)
    optimizer = build_optimizer(settings.optimizer, all_steps)
    state = create_state(model, optimizer, keeps_average=settings.average_decay is not None)
    return Plan(task, settings, model, optimizer, splits, steps_per_epoch, last_step), state
