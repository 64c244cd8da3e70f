import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deq_jax.training.settings.update import OptimizerConfig
from deq_jax.training.steps.optimizer import build_optimizer, build_schedule

PARAMS = {"conv": jnp.ones((3, 3, 2, 4)), "linear": jnp.ones((4, 5)), "bias": jnp.ones(5)}
METHODS = ["adam", "adamw", "sgd", "lion", "muon"]


def update(config, gradient=1.0):
    optimizer = build_optimizer(config, 10)
    grads = {name: jnp.full_like(leaf, gradient) for name, leaf in PARAMS.items()}
    return optimizer.update(grads, optimizer.init(PARAMS), PARAMS)[0]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_downhill(method):
    optimizer = build_optimizer(OptimizerConfig(method=method, learning_rate=0.05), 200)
    target = {name: leaf * 0.5 for name, leaf in PARAMS.items()}
    params, state = PARAMS, optimizer.init(PARAMS)

    def distance(params):
        return float(sum(jnp.sum((params[name] - target[name]) ** 2) for name in params))

    for _ in range(40):
        grads = {name: params[name] - target[name] for name in params}
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    assert distance(params) < 0.5 * distance(PARAMS)


@pytest.mark.parametrize("method", METHODS[1:])
def test_weight_decay_pulls_kernels_and_spares_biases(method):
    plain, decayed = (update(OptimizerConfig(method=method, weight_decay=decay), 0.0) for decay in (0.0, 0.1))
    for name in ("conv", "linear") if method != "muon" else ("conv",):
        assert (decayed[name] < plain[name]).all()
    np.testing.assert_array_equal(decayed["bias"], plain["bias"])


@pytest.mark.parametrize("method", METHODS[1:])
def test_weight_decay_is_no_part_of_the_momentum(method):
    """Without a gradient a kernel shrinks by rate · decay in every step, and no faster with time."""
    config = OptimizerConfig(method=method, learning_rate=0.1, final_learning_rate=0.1, weight_decay=0.1)
    optimizer = build_optimizer(config, 10)
    params, state = PARAMS, optimizer.init(PARAMS)
    zeros = {name: jnp.zeros_like(leaf) for name, leaf in PARAMS.items()}
    for _ in range(5):
        updates, state = optimizer.update(zeros, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["conv"], (1 - 0.1 * 0.1) ** 5, rtol=1e-5)


@pytest.mark.parametrize(("warmup", "total"), [(1.0, 10), (0.6, 1), (1.0, 1)])
def test_a_rise_over_the_whole_run_leaves_a_step_to_fall_in(warmup, total):
    config = OptimizerConfig(schedule="onecycle", warmup=warmup, learning_rate=0.1, final_learning_rate=1e-4)
    schedule = build_schedule(config, total)
    assert float(schedule(total)) == pytest.approx(1e-4)
    assert float(schedule(total - 1)) == pytest.approx(0.1)


def test_clipping_bounds_the_gradient():
    config = OptimizerConfig(method="sgd", momentum=0.0, learning_rate=1.0, clip=0.5)
    assert float(optax.tree.norm(update(config, 100.0))) == pytest.approx(0.5, rel=1e-5)
    assert float(optax.tree.norm(update(config, 1e-3))) < 0.1


def test_onecycle_rises_along_a_line_and_falls_along_a_cosine():
    config = OptimizerConfig(schedule="onecycle", learning_rate=0.1, final_learning_rate=1e-4, warmup=0.2)
    schedule = build_schedule(config, 100)
    rates = np.array([float(schedule(step)) for step in range(101)])
    np.testing.assert_allclose(rates[:21], np.linspace(0.1 / 25, 0.1, 21), rtol=1e-5)
    t = np.arange(81) / 80
    np.testing.assert_allclose(rates[20:], 1e-4 + (0.1 - 1e-4) * (1 + np.cos(np.pi * t)) / 2, rtol=1e-4)


def test_muon_moves_convolutions_by_orthogonal_steps():
    rng = np.random.default_rng(0)
    grads = {name: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for name, leaf in PARAMS.items()}
    optimizer = build_optimizer(OptimizerConfig(method="muon"), 10)
    step = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)[0]["conv"].reshape(18, 4)
    singular = np.linalg.svd(step, compute_uv=False)
    assert singular.max() < 2 * singular.min()  # five Newton-Schulz steps are approximate
