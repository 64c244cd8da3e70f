import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deq_jax.tasks.images.build import build_model
from deq_jax.tasks.images.data import Examples, load
from deq_jax.tasks.images.task import classification, classification_loss
from deq_jax.training.settings.solves import AdjointConfig, SolverConfig
from deq_jax.training.settings.update import OptimizerConfig
from deq_jax.training.steps.batches import eval_batches, train_batch
from deq_jax.training.steps.evaluation import eval_means
from deq_jax.training.steps.optimizer import build_optimizer
from deq_jax.training.steps.step import create_state, make_eval_step, make_train_step
from tests.runs import tiny

STEPS = 14  # two epochs
pytestmark = pytest.mark.xdist_group("step")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("unused"))


@pytest.fixture(scope="module")
def digits():
    return load("digits", "train").examples


@pytest.fixture(scope="module")
def model(config):
    return build_model(config, (8, 8, 1), 10)


@pytest.fixture(scope="module")
def optimizer(config):
    return build_optimizer(config.optimizer, STEPS)


@pytest.fixture(scope="module")
def trained(config, digits, model, optimizer):
    """The states and metrics of two epochs, from one trace of the step."""
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(make_train_step(model, classification_loss, optimizer), n=1))
    states, metrics = [create_state(model, optimizer)], []
    for k in range(STEPS):
        batch = train_batch(digits, config.seed, k, config.batch_size)
        state, measured = step(states[-1], batch)
        states.append(state)
        metrics.append(jax.device_get(measured))
    return states, metrics


@pytest.fixture(scope="module")
def eval_step(model):
    return jax.jit(make_eval_step(model, classification))


def test_a_few_steps_lower_the_loss(trained):
    losses = [measured.loss for measured in trained[1]]
    assert losses[0] == pytest.approx(np.log(10), abs=0.2)  # ten classes, none preferred yet
    assert np.mean(losses[-3:]) < losses[0] - 0.1


def test_a_second_epoch_compiles_nothing(trained):
    """`assert_max_traces` in the fixture has seen two epochs and one trace."""
    assert [int(state.step) for state in trained[0]] == list(range(STEPS + 1))


def test_both_solves_are_reported(config, trained):
    for measured in trained[1]:
        assert 1 <= measured.forward_iterations <= config.solver.max_iter
        assert 1 <= measured.adjoint_iterations <= config.solver.max_iter
        assert 0 < measured.forward_residual < 1
        assert 0 < measured.adjoint_residual < 1
        assert 0 <= measured.metrics["accuracy"] <= 1
        assert 0 <= measured.forward_converged <= 1
        assert 0 <= measured.adjoint_converged <= 1
        assert measured.is_finite


def first_metrics(config, digits):
    """What the first step of a run with these settings measures."""
    model, optimizer = build_model(config, (8, 8, 1), 10), build_optimizer(config.optimizer, STEPS)
    batch = train_batch(digits, config.seed, 0, config.batch_size)
    return jax.jit(make_train_step(model, classification_loss, optimizer))(create_state(model, optimizer), batch)[1]


def test_the_adjoints_own_settings_are_the_adjoints_and_no_others(config, digits, trained):
    measured = first_metrics(dataclasses.replace(config, adjoint=AdjointConfig(max_iter=2)), digits)
    assert measured.adjoint_iterations <= 2 < trained[1][0].adjoint_iterations
    assert measured.forward_iterations == trained[1][0].forward_iterations


@pytest.mark.parametrize(
    ("solver", "adjoint", "forward_converged", "adjoint_converged"),
    [
        (SolverConfig(tol=0.99), AdjointConfig(), 1, 1),
        (SolverConfig(tol=0.99, max_iter=2), AdjointConfig(tol=1e-30), 1, 0),
        (SolverConfig(tol=1e-30, max_iter=2), AdjointConfig(tol=0.99), 0, 1),
    ],
)
def test_the_share_of_solves_that_reach_their_tolerance(
    config, digits, solver, adjoint, forward_converged, adjoint_converged
):
    measured = first_metrics(dataclasses.replace(config, solver=solver, adjoint=adjoint), digits)
    assert (measured.forward_converged, measured.adjoint_converged) == (forward_converged, adjoint_converged)


@pytest.mark.parametrize("kind", ["phantom", "jacobian-free"])
def test_an_adjoint_that_is_not_solved_to_a_tolerance_has_no_share_that_reached_it(config, digits, kind):
    measured = first_metrics(dataclasses.replace(config, adjoint=AdjointConfig(kind=kind)), digits)
    assert np.isinf(measured.adjoint_converged)
    assert 0 <= measured.forward_converged <= 1


def test_every_parameter_and_every_running_average_moves(trained):
    before, after = trained[0][0], trained[0][-1]
    for one, other in zip(
        jax.tree.leaves((before.params, before.batch_stats)),
        jax.tree.leaves((after.params, after.batch_stats)),
        strict=True,
    ):
        assert not np.array_equal(one, other)


def test_the_state_keeps_its_form(trained):
    """A checkpoint of any step restores into the state of step 0."""
    chex.assert_trees_all_equal_shapes_and_dtypes(*trained[0])


def test_the_state_is_updated_in_place_and_the_model_is_not(config, digits, model, optimizer):
    batch = train_batch(digits, 0, 0, config.batch_size)
    state = create_state(model, optimizer)
    step = jax.jit(make_train_step(model, classification_loss, optimizer), donate_argnums=0)
    step(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(nnx.state(model)))


def test_a_gradient_that_is_not_finite_is_noticed(config, digits, model, optimizer):
    batch = train_batch(digits, 0, 0, config.batch_size)
    state = create_state(model, optimizer)
    broken = state._replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params))
    _, measured = jax.jit(make_train_step(model, classification_loss, optimizer))(broken, batch)
    assert not measured.is_finite


@pytest.mark.long
def test_evaluation_is_the_mean_over_all_images_however_they_are_batched(trained, eval_step):
    """360 images in batches of 180, 100 (which does not divide them) and 7."""
    test, state = load("digits", "test").examples, trained[0][-1]
    means = [
        eval_means(
            [
                jax.device_get(eval_step(state.params, state.batch_stats, *batch))
                for batch in eval_batches(test, batch_size)
            ]
        )
        for batch_size in (180, 100, 7)
    ]
    for other in means[1:]:
        assert other["samples"] == 360
        assert other["accuracy"] == means[0]["accuracy"]
        # Float32 sums in another order, and convolutions tiled otherwise: a few hundred roundings of 6e-8.
        assert other["loss"] == pytest.approx(means[0]["loss"], rel=1e-5)
        assert other["forward_iterations"] == pytest.approx(means[0]["forward_iterations"], rel=1e-2)


def test_what_is_masked_out_does_not_count(trained, eval_step):
    state = trained[0][-1]
    examples = next(eval_batches(load("digits", "test").examples, 180)).examples
    mask = np.arange(180) < 60
    junk = np.where(mask[:, None, None, None], examples.images, 255).astype(np.uint8)
    wrong = np.where(mask, examples.labels, 0).astype(np.int32)
    one, other = (
        jax.device_get(eval_step(state.params, state.batch_stats, batch, mask))
        for batch in (examples, Examples(junk, wrong))
    )
    chex.assert_trees_all_equal(one, other)
    assert one.samples == 60


def test_the_rate_follows_pytorchs_cosine():
    """Adam's first update is the rate times the sign of the gradient, whatever its size."""
    config = OptimizerConfig(learning_rate=1e-3, final_learning_rate=1e-6)
    optimizer, total = build_optimizer(config, 8), 8
    params = jnp.zeros(())
    state = optimizer.init(params)
    rates = []
    for _ in range(total + 1):
        update, state = optimizer.update(jnp.ones(()), state, params)
        rates.append(-float(update))
    t = np.arange(total + 1)
    expected = 1e-6 + (1e-3 - 1e-6) * (1 + np.cos(np.pi * t / total)) / 2
    # Float32, and Adam's epsilon of 1e-8 beside a gradient of 1.
    np.testing.assert_allclose(rates, expected, rtol=1e-4)


def test_the_given_model_is_left_as_it_was(config):
    model = build_model(config, (8, 8, 1), 10)
    model.eval()
    before = nnx.split(model)
    make_train_step(model, classification_loss, build_optimizer(config.optimizer, 1))
    make_eval_step(model, classification)
    after = nnx.split(model)
    assert before[0] == after[0]
    chex.assert_trees_all_equal(before[1], after[1])
