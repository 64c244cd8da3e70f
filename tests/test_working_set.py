"""Samples that are finished are evaluated no more, and nothing else changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import deq_jax
from deq_jax import Status, nn, per_sample
from deq_jax.solvers.working_set import group_width
from tests.working_sets import BATCH, SOLVERS, N, cell, check_same, own_rule, problem, samples_evaluated


def both(function):
    """The result with what belongs to samples unmarked, and marked."""
    return function(lambda x: x), function(per_sample)


@pytest.mark.parametrize("solver", [*SOLVERS, own_rule])
def test_the_solution_is_the_same_and_costs_less(solver):
    solver = functools.partial(solver, tol=1e-4, max_iter=60, trace=True)
    z0, x, weight = problem()
    whole, groups = both(lambda mark: deq_jax.fixed_point(cell, z0, mark(x), weight, solver=solver))
    assert len(set(whole.iterations.tolist())) > 5
    check_same(whole, groups)
    needed, spent = int(whole.iterations.sum()), samples_evaluated(solver, per_sample, x)
    assert samples_evaluated(solver, lambda x: x, x) == BATCH * int(whole.iterations.max())
    assert spent < 0.5 * needed + 0.5 * BATCH * int(whole.iterations.max())


@pytest.mark.long
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_gradient_its_report_and_its_own_gradient_are_the_same(solver):
    solver = functools.partial(solver, tol=1e-5, max_iter=80)
    z0, x, weight = problem()

    def loss(mark, x, weight, report):
        return jnp.sum(deq_jax.fixed_point(cell, z0, mark(x), weight, solver=solver, report=report).value ** 2)

    def derivatives(mark):
        gradient = jax.grad(functools.partial(loss, mark), argnums=(0, 1, 2))
        first = jax.jit(gradient)(x, weight, deq_jax.adjoint_report(BATCH))
        second = jax.jit(jax.grad(lambda w: jnp.sum(jax.grad(lambda w: loss(mark, x, w, None))(w) ** 2)))(weight)
        return first, second

    (whole, whole_second), (groups, groups_second) = both(derivatives)
    np.testing.assert_array_equal(whole[2].iterations, groups[2].iterations)
    assert len(set(whole[2].iterations.tolist())) > 3
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), whole, groups)
    np.testing.assert_allclose(whole_second, groups_second, rtol=1e-3, atol=1e-3 * float(jnp.abs(whole_second).max()))


@pytest.mark.long
def test_within_other_transformations():
    solver = functools.partial(deq_jax.anderson, tol=1e-4, max_iter=60)
    z0, x, weight = problem()

    def layer(mark, weight):
        return deq_jax.fixed_point(cell, z0, mark(x), weight, solver=solver).value

    def mapped(mark):
        return jax.jit(jax.vmap(jax.grad(lambda w: jnp.sum(layer(mark, w) ** 2))))(jnp.stack([weight, 0.5 * weight]))

    def scanned(mark):
        def loss(w):
            return jax.lax.scan(lambda w, _: (w, jnp.sum(layer(mark, w) ** 2)), w, length=2)[1].sum()

        return jax.jit(jax.grad(loss))(weight)

    def saved(mark):
        return jax.jit(jax.grad(lambda w: jnp.sum(jax.checkpoint(functools.partial(layer, mark))(w) ** 2)))(weight)

    for transformed in (mapped, scanned, saved):
        whole, groups = both(transformed)
        np.testing.assert_allclose(whole, groups, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("batch", [0, 1, 7, 8, 16, 19])
def test_a_batch_of_any_size(batch):
    solver = functools.partial(deq_jax.anderson, tol=1e-4, max_iter=60)
    z0, x, weight = problem(batch)
    check_same(*both(lambda mark: deq_jax.fixed_point(cell, z0, mark(x), weight, solver=solver)))


@pytest.mark.long
def test_samples_that_are_finished_at_once_or_never_or_are_nan():
    solver = functools.partial(deq_jax.anderson, tol=1e-4, max_iter=60)
    z0, (x, gain), weight = problem()

    def solve(mark, x, gain, start):
        return deq_jax.fixed_point(cell, start, mark((x, gain)), weight, solver=solver)

    there = solve(per_sample, x, gain, z0).value
    at_once = solve(per_sample, x, gain, there)
    assert (at_once.iterations == 1).all()
    short = functools.partial(deq_jax.anderson, tol=1e-4, max_iter=2)
    never = both(lambda mark: deq_jax.fixed_point(cell, z0, mark((x, gain)), weight, solver=short))
    assert (never[0].status == Status.MAX_ITER).all()
    check_same(*never)
    broken = both(lambda mark: solve(mark, x.at[::5].set(jnp.nan), gain, z0))
    assert (broken[0].status[::5] == Status.DIVERGED).all()
    check_same(*broken)


@pytest.mark.parametrize("make", [nn.ResNetCell, nn.InjectionCell])
def test_a_layer_knows_its_samples(make):
    seen = []

    class Counted(make):
        def __call__(self, z, x):
            seen.append(z.shape[0])
            return super().__call__(z, x)

    cell = Counted(4, 4, num_groups=2, max_gain=0.9, rngs=nnx.Rngs(0))
    nn.DEQ(cell)(jax.random.normal(jax.random.key(0), (16, 4, 4, 4)))
    assert set(seen) == {16, group_width(16)}


def test_a_linen_layer_too():
    seen = []

    class Cell(linen.Module):
        @linen.compact
        def __call__(self, z, x):
            seen.append(z.shape[0])
            return jnp.tanh(linen.Dense(4)(z)) + x

    layer, x = nn.linen.DEQ(Cell()), jnp.ones((16, 4))
    layer.apply(layer.init(jax.random.key(0), x), x)
    assert set(seen) == {16, group_width(16)}


def test_a_layer_whose_cell_holds_something_for_each_sample_is_solved_as_a_whole():
    class Masked(nnx.Module):
        def __init__(self):
            self.mask = nnx.Variable(jnp.linspace(0.1, 0.9, BATCH)[:, None] * jnp.ones((BATCH, N)))

        def __call__(self, z, x):
            return self.mask[...] * jnp.tanh(z) + x

    solution = nn.DEQ(Masked())(jnp.ones((BATCH, N)))
    assert (solution.status == Status.CONVERGED).all()


def test_what_is_marked_must_have_a_row_for_each_sample():
    z0, x, weight = problem()
    with pytest.raises(ValueError, match=r"a row for each of 19 samples, but args\[1\] is of shape \[6, 6\]"):
        deq_jax.fixed_point(cell, z0, x, per_sample(weight))
    with pytest.raises(ValueError, match="no samples"):
        deq_jax.fixed_point(lambda z, x: 0.5 * z + x, jnp.zeros(3), per_sample(jnp.ones(3)), batched=False)


def test_what_belongs_to_samples_and_is_closed_over_is_named():
    z0, (x, gain), weight = problem()
    with pytest.raises(TypeError, match="must be an argument, marked by per_sample, and not be closed over"):
        deq_jax.fixed_point(lambda z, gain: cell(z, (x, gain), weight), z0, per_sample(gain))


def test_check_independence_sees_what_is_marked_wrongly():
    z0, (x, gain), weight = problem()
    deq_jax.check_independence(cell, z0, per_sample((x, gain)), weight)
    with pytest.raises(ValueError, match="not all that belongs to samples"):
        deq_jax.check_independence(lambda z, x: z / 2 + x - x.mean(0), z0, per_sample(x))
