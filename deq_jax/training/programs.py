"""What a run compiles: a model and an update for each of its phases, an evaluation, and a look at the cell."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from deq_jax.training.plan import Plan
from deq_jax.training.promises import evaluation_of, loss_of
from deq_jax.training.settings.settings import Settings
from deq_jax.training.steps import penalty
from deq_jax.training.steps.batches import count, taken
from deq_jax.training.steps.evaluation import RadiusStep, evaluate, make_radius_step
from deq_jax.training.steps.phases import Phase, phases_of
from deq_jax.training.steps.solving import in_precision, training_model
from deq_jax.training.steps.step import EvalStep, Recipe, TrainState, TrainStep, make_eval_step, make_train_step
from deq_jax.training.task import Examples, Task


class Programs(NamedTuple):
    """Compiled for one batch size."""

    train_steps: dict[Phase, TrainStep]
    eval_step: EvalStep | None
    """None where there is nothing to evaluate on."""
    radius_step: RadiusStep | None
    """None where no samples are to be looked at."""


def build_recipe(task: Task, settings: Settings, phase: Phase) -> Recipe:
    """What a training step of a phase does beside the plain gradient step."""
    return Recipe(
        seed=settings.seed,
        augment=task.augment,
        penalty_weight=settings.penalty.weight if phase.has_penalty else 0.0,
        penalty={"jacobian": penalty.jacobian, "contraction": penalty.contraction}[settings.penalty.kind],
        average_decay=settings.average_decay,
        equilibria=task.equilibria,
        skips_non_finite=settings.optimizer.skip_non_finite,
        micro_batches=settings.micro_batches,
    )


def compile_programs(plan: Plan, state: TrainState, step: int) -> Programs:
    """The programs that the run takes from `step` on."""
    task, settings, devices = plan.task, plan.settings, plan.devices
    precise = functools.partial(in_precision, settings.precision)
    examples = next(plan.batches("train")).examples

    def update(phase: Phase) -> TrainStep:
        model = training_model(task, settings, phase)
        loss = loss_of(task, needs_functions=phase.has_penalty)
        train_step = make_train_step(model, loss, plan.optimizer, build_recipe(task, settings, phase))
        return devices.compiled(precise(train_step), state, examples, donate_argnums=(0,))

    phases = phases_of(settings, range(step, plan.last_step), plan.all_steps)
    train_steps = {phase: update(phase) for phase in sorted(phases)}
    if not plan.evaluated:
        return Programs(train_steps, eval_step=None, radius_step=None)
    evaluate, radius_step = evaluation_of(task), None
    if settings.evaluation.radius_samples:
        radius_step = devices.compiled(
            precise(make_radius_step(plan.model, evaluate)), *state.evaluated, _watched(plan)
        )
    eval_step = devices.compiled(
        precise(make_eval_step(plan.model, evaluate)), *state.evaluated, *next(plan.batches(plan.evaluated[0]))
    )
    return Programs(train_steps, eval_step, radius_step)


def evaluate_split(
    plan: Plan, programs: Programs, split: str, state: TrainState, is_cancelled: Callable[[], bool]
) -> dict[str, float] | None:
    """Means over a split, and on the last of them how contractive the cell is; None when cancelled."""
    assert programs.eval_step is not None
    means = evaluate(programs.eval_step, state, plan.batches(split), is_cancelled)
    if means is not None and programs.radius_step is not None and split == plan.evaluated[-1]:
        radii = jax.device_get(programs.radius_step(*state.evaluated, _watched(plan)))
        if radii is not None:
            means |= {"spectral_radius": float(radii.mean()), "spectral_radius_max": float(radii.max())}
    return means


def _watched(plan: Plan) -> Examples:
    """The samples at whose equilibria the cell is looked at."""
    examples = plan.splits[plan.evaluated[-1]]
    samples = min(plan.settings.evaluation.radius_samples, count(examples))
    return plan.devices.everywhere(taken(examples, np.arange(samples)))
