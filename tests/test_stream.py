"""A stream of samples through a working set of fixed width costs what its samples cost, and answers the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax import nn, per_sample
from deq_jax.solvers.working_set import group_width
from tests.working_sets import SOLVERS, cell, check_same, own_rule, problem, samples_evaluated


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
