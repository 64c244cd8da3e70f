"""What a training run reads and how long it is, settled before its first step."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import optax
from flax import nnx

from deq_jax.training.devices.devices import Devices, devices_for
from deq_jax.training.errors import UserError
from deq_jax.training.promises import require_data
from deq_jax.training.settings.checks import WHOLE
from deq_jax.training.settings.settings import Settings
from deq_jax.training.steps.batches import Batch, count, eval_batch_size, eval_batches, train_batch
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
    devices: Devices

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The splits that there are to evaluate on, the one by which the run is judged first."""
        return tuple(split for split in ("validation", "test") if split in self.splits)

    @property
    def all_steps(self) -> int:
        """Steps of all epochs, which schedules span; the last step may come before."""
        return self.settings.epochs * self.steps_per_epoch

    def batch(self, step: int) -> Examples:
        """What the `step`-th update, counted from 1, reads: this process's share, on its devices."""
        settings, train = self.settings, self.splits["train"]
        rows = train_batch(train, settings.seed, step - 1, settings.batch_size, self.devices.share)
        return self.devices.spread(rows)

    def batches(self, split: str) -> Iterator[Batch]:
        """A split in order, as `eval_batches` reads it: the training split as in training, others in longer batches."""
        examples, size = self.splits[split], self.settings.batch_size
        if split != "train":
            # One program serves all splits that are evaluated.
            counts = [count(self.splits[split]) for split in self.evaluated]
            size = min(eval_batch_size(n, size, self.devices.number) for n in counts)
        batches = eval_batches(examples, size, self.devices.share)
        return map(self.devices.spread, batches)

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
        UserError: the data, the settings or the devices do not fit.
    """
    require_data(task.data)
    splits = divided(task.data, settings.validation.share, settings.seed)
    samples = count(splits["train"])
    steps_per_epoch = samples // settings.batch_size
    if not steps_per_epoch:
        raise UserError(f"batch_size {settings.batch_size} exceeds the {samples:,} training {task.data.unit}.")
    devices = devices_for(settings.batch_size, settings.devices)
    if settings.batch_size % (devices.number * settings.micro_batches):
        raise UserError(
            f"batch_size {settings.batch_size} does not fall evenly into {settings.micro_batches} micro_batches on "
            f"{devices.number} devices.\nTake a multiple of {devices.number * settings.micro_batches}."
        )
    all_steps = settings.epochs * steps_per_epoch
    if all_steps > WHOLE:
        raise UserError(
            f"{settings.epochs:,} epochs are {all_steps:,} steps; there can be {WHOLE:,}. Give fewer epochs: "
            f"{WHOLE // steps_per_epoch:,} at most."
        )
    last_step = all_steps if settings.max_steps is None else min(all_steps, settings.max_steps)
    model = evaluation_model(task, settings, devices.number)
    optimizer = build_optimizer(settings.optimizer, all_steps)
    state = create_state(model, optimizer, keeps_average=settings.average_decay is not None)
    plan = Plan(task, settings, model, optimizer, splits, steps_per_epoch, last_step, devices)
    return plan, devices.everywhere(state)
