"""What a training run reads and does, settled before its first step, and compiled."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from deq_jax.tasks.images.build import build_model, build_recipe, for_evaluation
from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.data import Dataset, eval_batches, load, train_batch
from deq_jax.training.errors import UserError
from deq_jax.training.process.compilation import compiled
from deq_jax.training.steps.evaluation import evaluate
from deq_jax.training.steps.optimizer import build_optimizer
from deq_jax.training.steps.phases import Phase, phase_of, phases_of
from deq_jax.training.steps.radius import RadiusStep, make_radius_step
from deq_jax.training.steps.step import (
    EvalStep,
    Images,
    TrainState,
    TrainStep,
    create_state,
    make_eval_step,
    make_train_step,
)


class Plan(NamedTuple):
    """Data, programs and the length of a run."""

    config: Config
    train: Dataset
    test: Dataset
    train_steps: dict[Phase, TrainStep]
    """One program a phase of the run; empty until compiled."""
    eval_step: EvalStep
    radius_step: RadiusStep | None
    steps_per_epoch: int
    last_step: int

    @property
    def all_steps(self) -> int:
        """Steps of all epochs, which schedules span; the last step may come before."""
        return self.config.epochs * self.steps_per_epoch

    def train_step_of(self, step: int) -> TrainStep:
        """The program of the `step`-th update, counted from 1."""
        return self.train_steps[phase_of(self.config, step - 1, self.all_steps)]

    def epoch_of(self, step: int) -> int:
        """The epoch, from 1, that the `step`-th update belongs to."""
        return (step - 1) // self.steps_per_epoch + 1

    def ends_at(self, step: int) -> bool:
        """Whether an epoch or the run does."""
        return step > 0 and (step % self.steps_per_epoch == 0 or step >= self.last_step)

    def evaluates_at(self, step: int) -> bool:
        """Whether the test split is evaluated after the `step`-th update."""
        every = self.config.evaluation.every * self.steps_per_epoch
        return step > 0 and (step % every == 0 or step >= self.last_step)


def prepare(config: Config) -> tuple[Plan, TrainState]:
    """The plan, its programs not yet compiled, and the state before the first step.

    Raises:
        UserError: the data or the settings do not fit.
    """
    train, test = (load(config.dataset, split, config.data_dir) for split in ("train", "test"))
    steps_per_epoch = len(train.labels) // config.batch_size
    if not steps_per_epoch:
        raise UserError(f"--batch-size {config.batch_size} exceeds the {len(train.labels):,} training images.")
    all_steps = config.epochs * steps_per_epoch
    last_step = all_steps if config.max_steps is None else min(all_steps, config.max_steps)
    height, width, channels = train.images.shape[1:]
    if config.augmentation.shift >= min(height, width):
        raise UserError(f"--augmentation.shift {config.augmentation.shift} exceeds images of {height}×{width} pixels.")
    model = build_model(for_evaluation(config), (height, width, channels), train.num_classes)
    plan = Plan(
        config,
        train,
        test,
        train_steps={},
        eval_step=make_eval_step(model, flip=config.evaluation.flip),
        radius_step=None if model.cell is None or not config.evaluation.radius_images else make_radius_step(model),
        steps_per_epoch=steps_per_epoch,
        last_step=last_step,
    )
    optimizer = build_optimizer(config.optimizer, all_steps)
    return plan, create_state(model, optimizer, keeps_average=config.average_decay is not None)


def compile_programs(plan: Plan, state: TrainState, step: int) -> Plan:
    """The plan with the programs compiled that it takes from `step` on."""
    config = plan.config
    batch = train_batch(plan.train, config.seed, 0, config.batch_size)
    optimizer = build_optimizer(config.optimizer, plan.all_steps)

    def program(phase: Phase) -> TrainStep:
        model = build_model(config, batch.images.shape[1:], plan.train.num_classes, phase)
        train_step = make_train_step(model, optimizer, build_recipe(config, phase))
        return compiled(train_step, state, batch.images, batch.labels, donate_argnums=(0,))

    phases = phases_of(config, range(step, plan.last_step), plan.all_steps)
    radius_step = plan.radius_step
    if radius_step is not None:
        radius_step = compiled(radius_step, *state.evaluated, _radius_images(plan))
    return plan._replace(
        train_steps={phase: program(phase) for phase in sorted(phases)},
        eval_step=compiled(plan.eval_step, *state.evaluated, *batch),
        radius_step=radius_step,
    )


def _radius_images(plan: Plan) -> Images:
    return plan.test.images[: plan.config.evaluation.radius_images]


def evaluate_test_split(plan: Plan, state: TrainState, is_cancelled: Callable[[], bool]) -> dict[str, float] | None:
    """Means over the test split, and how contractive the cell is; None when cancelled."""
    means = evaluate(plan.eval_step, state, eval_batches(plan.test, plan.config.batch_size), is_cancelled)
    if means is not None and plan.radius_step is not None:
        radii = jax.device_get(plan.radius_step(*state.evaluated, _radius_images(plan)))
        means |= {"spectral_radius": float(radii.mean()), "spectral_radius_max": float(radii.max())}
    return means
