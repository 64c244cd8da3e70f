"""A layer that does not solve, but evaluates its cell so many times; and a run whose first steps do."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import deq_jax
from deq_jax import nn
from deq_jax.tasks.images.config import settings_of
from deq_jax.tasks.images.groups import EvaluationConfig, ModelConfig
from deq_jax.tasks.images.presets import PRESETS
from deq_jax.tasks.presets import train
from deq_jax.training.settings.solves import AdjointConfig, EarlyConfig, SolverConfig
from deq_jax.training.settings.update import PenaltyConfig
from deq_jax.training.steps.phases import Phase, phase_of, phases_of
from tests.runs import records, tiny, without_times


def by_hand(cell, x, times):
    z = cell.initial_state(x)
    for _ in range(times):
        z = cell(z, x)
    return z


def test_it_is_a_network_of_so_many_layers_of_the_same_weights(x64):
    cell = nn.FeedForwardCell(3, 5, kernel_init=nnx.initializers.normal(0.3), param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    graph, state = nnx.split(cell)
    x = jax.random.normal(jax.random.key(0), (4, 3), jnp.float64)

    def loss(network, state, x):
        return jnp.sum(network(nnx.merge(graph, state), x) ** 2)

    ours = functools.partial(loss, lambda cell, x: nn.DEQ(cell, unroll=3)(x).value)
    expected = functools.partial(loss, lambda cell, x: by_hand(cell, x, 3))
    for one, other in zip(
        *(jax.tree.leaves(jax.grad(f, argnums=(0, 1))(nnx.as_pure(state), x)) for f in (ours, expected)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_what_it_says_of_itself():
    """So many evaluations, no residual, and nothing of an adjoint."""
    layer, x = nn.DEQ(nn.FeedForwardCell(3, 5, rngs=nnx.Rngs(0)), unroll=4), jnp.ones((2, 3))
    report, sol = jax.grad(
        lambda report: (lambda sol: (jnp.sum(sol.value), sol))(layer(x, report=report)), has_aux=True
    )(deq_jax.adjoint_report(2))
    assert sol.iterations.tolist() == [4, 4]
    assert jnp.isinf(sol.residual).all()
    assert report.iterations.tolist() == [0, 0]


def test_state_that_changes_is_refused_here_too():
    class Counting(nnx.Module):
        def __init__(self):
            self.count = nnx.Variable(jnp.zeros(()))

        def __call__(self, z, x):
            self.count[...] += 1
            return z + x

    with pytest.raises(ValueError, match=r"changes its own state inside the solve \(count\)"):
        nn.DEQ(Counting(), unroll=2)(jnp.ones((1, 2)))


def test_the_count_must_be_one():
    with pytest.raises(ValueError, match="unroll must be"):
        nn.DEQ(nn.FeedForwardCell(3, 5, rngs=nnx.Rngs(0)), unroll=0)


def test_a_linen_module_unrolls_as_well():
    class Cell(linen.Module):
        @linen.compact
        def __call__(self, z, x):
            return jnp.tanh(linen.Dense(3)(z) + x)

    cell, x = Cell(), jnp.ones((2, 3))
    layer = nn.linen.DEQ(cell, unroll=2)
    variables = layer.init(jax.random.key(0), x)
    inner = {"params": variables["params"]["cell"]}
    expected = cell.apply(inner, cell.apply(inner, jnp.zeros_like(x), x), x)
    np.testing.assert_allclose(layer.apply(variables, x).value, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="unroll must be"):
        nn.linen.DEQ(Cell(), unroll=0)


def test_a_phase_unrolls_without_a_penalty(tmp_path):
    config = tiny(
        tmp_path, early=EarlyConfig(share=0.3, unroll=4), penalty=PenaltyConfig(weight=1.0, start=0.0, stop=0.5)
    )
    settings = settings_of(config)
    assert phase_of(settings, 2, 10) == Phase("implicit", 6, has_penalty=False, unroll=4)
    assert phase_of(settings, 3, 10) == Phase("implicit", 6, has_penalty=True)
    for steps in (range(10), range(2), range(2, 5), range(6, 10)):
        assert phases_of(settings, steps, 10) == {phase_of(settings, step, 10) for step in steps}
        assert sorted(phases_of(settings, steps, 10))  # as programs are compiled


def test_the_originals_first_three_thousand_steps_are_unrolled():
    settings, total = settings_of(PRESETS["multiscale-tiny"]()), 50 * (50_000 // 128)
    unrolled = [phase_of(settings, step, total).unroll for step in (0, 2999, 3000, total - 1)]
    assert unrolled == [10, 10, 0, 0]


MODEL = ModelConfig(
    kind="deq", cell="multiscale", tiers=(2, 4), expansion=1, num_groups=2, bottlenecks=(2, 2), features=4, dropout=0.3
)


@pytest.mark.long
def test_a_run_that_was_stopped_where_unrolling_ends_is_the_uninterrupted_one(tmp_path):
    """To the bit, dropout masks included: three steps of seven are unrolled, and the run is stopped after these."""

    def config(name, **changes):
        return tiny(
            tmp_path / name,
            model=MODEL,
            early=EarlyConfig(share=0.4, unroll=2),
            # Little to compile.
            solver=SolverConfig(method="forward-iteration", max_iter=3),
            adjoint=AdjointConfig(kind="phantom", steps=1),
            evaluation=EvaluationConfig(radius_images=0),
            **changes,
        )

    def seen(name):
        lines = records(tmp_path / name)
        return without_times(line for line in lines if line["step"] != 3 or line["kind"] == "train")

    assert train(config("whole")) == 0
    assert train(config("parts", max_steps=3)) == 0
    assert train(config("parts")) == 0
    assert seen("whole") == seen("parts")
    lines = seen("whole")[:-1]
    assert [line["forward_residual"] is None for line in lines] == [True] * 3 + [False] * 4
    assert [line["forward_iterations"] for line in lines[:3]] == [2.0] * 3
    assert [line["adjoint_iterations"] is None for line in lines] == [True] * 3 + [False] * 4
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["early"]["unroll"] == 2


def test_what_has_no_equilibrium_cannot_be_unrolled_at_first(tmp_path):
    with pytest.raises(ValueError, match=r"early\.share needs an equilibrium, but model\.kind is tied"):
        tiny(tmp_path, model=dataclasses.replace(MODEL, kind="tied"), early=EarlyConfig(share=0.4, unroll=2))
