import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import deq_jax
from deq_jax import nn, training
from deq_jax.training.steps.step import Recipe, create_state, make_train_step
from tests.own_task import QUICK, Cell, arrays, loss, own_task


class Plain(nnx.Module):
    """Nothing in which samples meet, and nothing drawn."""

    def __init__(self, rngs):
        self.stem = nnx.Linear(2, 4, rngs=rngs)
        self.deq = nn.DEQ(Cell(4, rngs), solver=functools.partial(deq_jax.anderson, tol=1e-5))

    def __call__(self, x, report=None):
        solution = self.deq(self.stem(x), report=report)
        return solution.value.sum(1), solution


@pytest.mark.long
def test_parts_make_the_step_of_the_whole_batch():
    model, examples, optimizer = Plain(nnx.Rngs(0)), arrays(24), optax.sgd(0.1)
    whole, parts = (
        jax.jit(make_train_step(model, loss, optimizer, Recipe(micro_batches=number)))(
            create_state(model, optimizer), examples
        )
        for number in (1, 3)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), parts, whole)
    assert parts[1].adjoint_iterations > 1


def test_one_part_that_is_not_finite_makes_the_step_so():
    model, (x, y), optimizer = Plain(nnx.Rngs(0)), arrays(8), optax.sgd(0.1)
    step = jax.jit(make_train_step(model, loss, optimizer, Recipe(micro_batches=2, skips_non_finite=True)))
    before = create_state(model, optimizer)
    after, measured = step(before, (x, jnp.asarray(y).at[3].set(jnp.nan)))
    assert not measured.is_finite
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)


def test_a_run_takes_micro_batches_and_names_what_does_not_divide(tmp_path):
    run = training.fit(own_task(), out=tmp_path / "run", micro_batches=2, quiet=True, **(QUICK | {"epochs": 1}))
    assert run.step == 3
    with pytest.raises(training.UserError, match="batch_size must fall evenly into micro_batches"):
        training.fit(own_task(), out=tmp_path / "other", micro_batches=3, quiet=True, **QUICK)
