"""What a training step does beside the plain gradient step."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deq_jax.tasks.images.build import build_model
from deq_jax.tasks.images.config import settings_of
from deq_jax.tasks.images.data import load
from deq_jax.tasks.images.groups import AugmentationConfig
from deq_jax.tasks.images.task import classification, classification_loss, image_task
from deq_jax.training.programs import build_recipe
from deq_jax.training.settings.solves import SolverConfig
from deq_jax.training.settings.update import OptimizerConfig, PenaltyConfig
from deq_jax.training.steps.batches import train_batch
from deq_jax.training.steps.optimizer import build_optimizer
from deq_jax.training.steps.phases import phase_of
from deq_jax.training.steps.step import Recipe, create_state, make_eval_step, make_train_step
from tests.runs import tiny

pytestmark = pytest.mark.xdist_group("step")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("unused"), batch_size=60)


@pytest.fixture(scope="module")
def digits():
    return load("digits", "train").examples


def recipe_of(config):
    """What the first step of a run with these settings does beside the plain gradient step."""
    settings = settings_of(config)
    task = image_task(config, {"train": load("digits", "train")})
    return build_recipe(task, settings, phase_of(settings, 0, 1))


@functools.cache
def compiled_once(config, recipe, smoothing):
    model, optimizer = build_model(config, (8, 8, 1), 10), build_optimizer(config.optimizer, 100)
    loss = functools.partial(classification_loss, smoothing=smoothing)
    return model, optimizer, jax.jit(make_train_step(model, loss, optimizer, recipe))


def states_of(config, digits, recipe, steps, start=None, smoothing=0.0):
    """The states before and after each of some steps, and what each of them measured."""
    model, optimizer, step = compiled_once(config, recipe, smoothing)
    states = [start or create_state(model, optimizer, keeps_average=recipe.average_decay is not None)]
    metrics = []
    for _ in range(steps):
        batch = train_batch(digits, config.seed, int(states[-1].step), config.batch_size)
        state, measured = step(states[-1], batch)
        states.append(state)
        metrics.append(jax.device_get(measured))
    return states, metrics


def trained(*arguments, **options):
    """The state after some steps, and what each of them measured."""
    states, metrics = states_of(*arguments, **options)
    return states[-1], metrics


@pytest.mark.long
def test_label_smoothing_changes_the_update_and_not_what_is_logged(config, digits):
    plain, (measured,) = trained(config, digits, Recipe(), 1)
    smoothed, (same,) = trained(config, digits, Recipe(), 1, smoothing=1.0)
    np.testing.assert_allclose(measured.loss, same.loss, rtol=1e-6)
    assert not np.array_equal(plain.params["head"]["kernel"], smoothed.params["head"]["kernel"])


@pytest.mark.long
def test_augmentation_depends_on_the_seed_and_the_step_alone(config, digits):
    recipe = recipe_of(dataclasses.replace(config, augmentation=AugmentationConfig(flip=True, shift=1)))
    whole, _ = trained(config, digits, recipe, 3)
    half, _ = trained(config, digits, recipe, 1)
    resumed, _ = trained(config, digits, recipe, 2, start=half)
    chex.assert_trees_all_equal(whole, resumed)
    other, _ = trained(config, digits, recipe._replace(seed=1), 3)
    plain, _ = trained(config, digits, Recipe(), 3)
    for different in (other, plain):
        assert not np.array_equal(jax.tree.leaves(whole.params)[0], jax.tree.leaves(different.params)[0])


@pytest.mark.long
def test_the_average_is_that_of_all_states_with_a_short_memory_at_first(config, digits):
    states, _ = states_of(config, digits, Recipe(average_decay=0.3), 5)
    average = (states[0].params, states[0].batch_stats)
    for t, state in enumerate(states[1:]):
        kept = min(0.3, (1 + t) / (10 + t))
        average = jax.tree.map(
            lambda a, b, kept=kept: kept * a + (1 - kept) * b, average, (state.params, state.batch_stats)
        )
    # Float32, added up in another order.
    chex.assert_trees_all_close(states[-1].average, average, rtol=1e-4, atol=1e-6)
    assert states[-1].evaluated is states[-1].average
    chex.assert_trees_all_equal_shapes_and_dtypes(states[0], states[-1])


def test_a_run_without_averages_evaluates_its_parameters(config, digits):
    state, _ = trained(config, digits, Recipe(), 1)
    assert state.evaluated == (state.params, state.batch_stats)


@pytest.mark.long
def test_a_flip_in_evaluation_averages_both_logits(config, digits):
    model = build_model(config, (8, 8, 1), 10)
    state = create_state(model, build_optimizer(config.optimizer, 1))
    batch = train_batch(digits, 0, 0, 60)
    mask = np.ones(60, bool)
    flipped = jax.jit(make_eval_step(model, functools.partial(classification, flip=True)))
    both = batch, batch._replace(images=batch.images[:, :, ::-1])
    one, other = (flipped(*state.evaluated, examples, mask) for examples in both)
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5)
    plain = jax.jit(make_eval_step(model, classification))(*state.evaluated, batch, mask)
    assert abs(plain.loss - one.loss) > 1e-4 * abs(one.loss)


@pytest.mark.long
def test_the_penalty_is_measured_where_it_is_on_and_is_not_part_of_the_loss(config, digits):
    _, (without,) = trained(config, digits, Recipe(), 1)
    _, (with_it,) = trained(config, digits, Recipe(penalty_weight=1.0), 1)
    assert without.penalty is None
    assert with_it.penalty > 0
    np.testing.assert_allclose(with_it.loss, without.loss, rtol=1e-6)


def test_a_penalty_is_chosen_by_its_name(config):
    """Each is a mean over the batch, that of the Jacobian of the size of one number of a state."""
    z, key = jnp.ones((2, 4, 4, 3)), jax.random.key(0)
    for kind, expected in [("jacobian", 0.5**2), ("contraction", (0.5**2 + 0) / 2)]:
        recipe = recipe_of(dataclasses.replace(config, penalty=PenaltyConfig(kind=kind, weight=1.0)))

        def penalty(a, z, kind=kind, recipe=recipe):
            at = z if kind == "jacobian" else z.at[1].set(0)  # an equilibrium: nothing is left there
            return recipe.penalty(lambda z: a * z, at, key)

        value, (slope, back) = jax.value_and_grad(penalty, argnums=(0, 1))(0.5, z)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        assert slope > 0
        np.testing.assert_array_equal(back, 0)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "weight"), [("jacobian", 10.0), ("contraction", 1.0)])
def test_the_penalty_holds_evaluations_down(config, digits, kind, weight):
    """The same run with and without it: the mean over the last steps, whose batches are the same."""
    config = dataclasses.replace(
        config, solver=SolverConfig(tol=1e-3, max_iter=40), optimizer=OptimizerConfig(learning_rate=5e-3)
    )

    def evaluations(penalty):
        recipe = recipe_of(dataclasses.replace(config, penalty=penalty))
        _, metrics = trained(config, digits, recipe, 40)
        return np.mean([measured.forward_iterations for measured in metrics[-10:]])

    assert evaluations(PenaltyConfig(kind=kind, weight=weight)) < 0.8 * evaluations(PenaltyConfig())
