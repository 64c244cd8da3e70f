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

BATCH, N = 19, 6
SOLVERS = (deq_jax.anderson, deq_jax.broyden, deq_jax.forward_iteration)


def own_rule(f, z0, **settings):
    """A rule of a user's own, with a state that samples share: half steps and whole ones in turns."""

    def update(z, fz, count, k):
        share = jnp.where(count % 2 == 0, 1.0, 0.5)
        return jax.tree.map(lambda z, fz: z + share * (fz - z), z, fz), count + 1

    return deq_jax.solve(deq_jax.Rule(lambda z0: jnp.int32(0), update), f, z0, **settings)


def problem(batch=BATCH):
    """Cells from easy to stiff: the samples need very different numbers of evaluations."""
    weight = jax.random.orthogonal(jax.random.key(0), N)
    x = jax.random.normal(jax.random.key(1), (batch, N))
    gain = jnp.linspace(0.05, 0.97, batch)[:, None] ** 0.5
    return jnp.zeros((batch, N)), (x, gain), weight


def cell(z, x, weight):
    x, gain = x
    return jnp.tanh(gain * (z @ weight)) + x


def both(function):
    """The result with what belongs to samples unmarked, and marked."""
    return function(lambda x: x), function(per_sample)


def check_same(whole, groups):
    """Statuses and counts the same, values as rounding leaves them: sums of fewer samples may be taken otherwise."""
    jax.tree.map(
        lambda a, b: (
            np.testing.assert_array_equal(a, b)
            if jnp.issubdtype(a.dtype, jnp.integer)
            else np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        ),
        whole,
        groups,
    )


def samples_evaluated(solver, mark, x, batch=BATCH):
    """The sum of the batches that ``f`` is called with."""
    z0, _, weight = problem(batch)
    seen = []

    def counted(z, x, weight):
        jax.debug.callback(lambda _: seen.append(z.shape[0]), z[0, 0])
        return cell(z, x, weight)

    jax.block_until_ready(jax.jit(lambda x: deq_jax.fixed_point(counted, z0, mark(x), weight, solver=solver))(x))
    jax.effects_barrier()
    return sum(seen)


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


def stream_of(width):
    return functools.partial(per_sample, width=width)


@pytest.mark.parametrize("solver", [*SOLVERS, own_rule])
def test_a_stream_has_the_same_solutions(solver):
    solver = functools.partial(solver, tol=1e-4, max_iter=40, trace=True)
    z0, x, weight = problem(50)
    whole, stream = (
        deq_jax.fixed_point(cell, z0, mark(x), weight, solver=solver) for mark in (lambda x: x, stream_of(8))
    )
    assert len(set(whole.iterations.tolist())) > 5
    np.testing.assert_array_equal(jnp.isfinite(whole.trace), jnp.isfinite(stream.trace))
    check_same(whole._replace(trace=None), stream._replace(trace=None))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_stream_costs_what_its_samples_cost(solver):
    solver = functools.partial(solver, tol=1e-4, max_iter=60)
    z0, x, weight = problem(150)
    needed = int(deq_jax.fixed_point(cell, z0, x, weight, solver=solver).iterations.sum())
    assert samples_evaluated(solver, stream_of(16), x, batch=150) < 1.1 * needed


def test_what_a_rule_shares_between_samples_or_counts_is_no_stream():
    z0, x, weight = problem(50)
    solver = functools.partial(own_rule, tol=1e-4, max_iter=40)
    assert samples_evaluated(solver, stream_of(8), x, 50) == samples_evaluated(solver, per_sample, x, 50)

    def slowing(f, z0, **settings):
        update = lambda z, fz, state, k: (z + (fz - z) / (1 + k / 100), state)  # noqa: E731
        return deq_jax.solve(deq_jax.Rule(lambda z0: (), update), f, z0, **settings)

    solver = functools.partial(slowing, tol=1e-4, max_iter=40)
    check_same(*(deq_jax.fixed_point(cell, z0, mark(x), weight, solver=solver) for mark in (per_sample, stream_of(8))))


@pytest.mark.parametrize(("batch", "width"), [(0, 3), (5, 1), (9, 8), (24, 3), (40, 7)])
def test_a_stream_of_any_length_and_width(batch, width):
    solver = functools.partial(deq_jax.anderson, tol=1e-4, max_iter=60)
    z0, (x, gain), weight = problem(batch)
    x = x.at[1::7].set(jnp.nan)
    check_same(
        *(
            deq_jax.fixed_point(cell, z0, mark((x, gain)), weight, solver=solver)
            for mark in (lambda x: x, stream_of(width))
        )
    )


def test_the_gradient_of_a_stream():
    solver = functools.partial(deq_jax.anderson, tol=1e-5, max_iter=80)
    z0, x, weight = problem(40)

    def gradient(mark):
        solve = functools.partial(deq_jax.fixed_point, cell, z0, mark(x), solver=solver)
        return jax.jit(jax.grad(lambda w: jnp.sum(solve(w).value ** 2)))(weight)

    np.testing.assert_allclose(gradient(lambda x: x), gradient(stream_of(8)), rtol=1e-4, atol=1e-3)


def test_a_width_is_one_positive_number():
    z0, (x, gain), weight = problem()
    with pytest.raises(ValueError, match="width must be a whole number, at least 1"):
        per_sample(x, width=0)
    with pytest.raises(ValueError, match="at most 4 samples are evaluated at a time, and of another that 8 are"):
        deq_jax.fixed_point(
            lambda z, x, g: cell(z, (x, g), weight), z0, per_sample(x, width=4), per_sample(gain, width=8)
        )


def test_a_layer_that_takes_so_many_samples_at_a_time():
    seen = []

    class Counted(nn.InjectionCell):
        def __call__(self, z, x):
            seen.append(z.shape[0])
            return super().__call__(z, x)

    cell, x = (
        Counted(4, 4, num_groups=2, max_gain=0.9, rngs=nnx.Rngs(0)),
        jax.random.normal(jax.random.key(0), (16, 4, 4, 4)),
    )
    stream, whole = nn.DEQ(cell, width=8)(x), nn.DEQ(cell, per_sample=False)(x)
    assert {8, group_width(8)} <= set(seen)
    check_same(whole, stream)


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
