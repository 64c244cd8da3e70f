"""Overshooting, extrapolation to infinity and stalls, driven through the solvers, and the judgement by itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax
from deq_jax import Rule, Status, solve
from deq_jax.solvers.fallback import BLOWN, HOLD, STALL, STRAY, judge, nothing_judged

ACCELERATED = [deq_jax.anderson, deq_jax.broyden]


def drift(z):
    """A step of 1 towards [4, 2.3] in the first number, half of the way in the second; slope 1 far out."""
    a, b = z[:, 0], z[:, 1]
    return jnp.stack([jnp.where(abs(a - 4) <= 1, 4.0, jnp.where(a > 4, a - 1, a + 1)), b + (2.3 - b) / 2], 1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("solver", ACCELERATED)
def test_what_plain_iteration_solves_is_not_lost_to_an_overshoot(x64, solver, dtype):
    def step(z):  # a gradient step on a convex quartic, 0.61 <= f' <= 0.995 on the starts
        return z - 0.005 * (z**3 + jnp.array([1.0, 2.0, 3.0], dtype) * z - 5)

    starts = jax.random.uniform(jax.random.key(0), (60, 3), dtype, minval=-5, maxval=5)
    many = solver(step, starts, tol=1e-2, max_iter=3000)
    np.testing.assert_array_equal(many.status, Status.CONVERGED)


@pytest.mark.parametrize("solver", ACCELERATED)
def test_the_gradient_is_there_after_an_overshoot(solver):
    def value(t):
        f = lambda z, t: z - (z**3 + z - t) / 100  # noqa: E731
        settings = functools.partial(solver, tol=1e-6, max_iter=500)
        return deq_jax.fixed_point(f, jnp.zeros((1, 1)), t, solver=settings).value[0, 0]

    z, slope = jax.value_and_grad(value)(5.0)
    np.testing.assert_allclose(z, 1.51598, rtol=1e-4)  # tol / (1 - 0.92)
    np.testing.assert_allclose(slope, 1 / (3 * 1.51598**2 + 1), rtol=1e-3)


@pytest.mark.parametrize("solver", [*ACCELERATED, deq_jax.forward_iteration])
def test_a_large_norm_hides_no_residual(solver):
    starts = jnp.array([[19.0, 10.0], [-27.6, -8.0], [17.3, 10.5], [-2.1, 25.3], [-1.4, 15.9]])
    sol = solver(drift, starts, tol=1e-3, max_iter=200)
    np.testing.assert_array_equal(sol.status, Status.CONVERGED)
    np.testing.assert_allclose(sol.value, np.broadcast_to([4.0, 2.3], starts.shape), atol=0.01)


@pytest.mark.parametrize("solver", ACCELERATED)
def test_what_plain_steps_do_not_hold_either_has_diverged(solver):
    sol = solver(lambda z: 2 + jnp.exp(z), jnp.zeros((1, 1)), max_iter=200)
    assert sol.status[0] == Status.DIVERGED
    assert sol.iterations[0] < 100


def test_near_a_zero_equilibrium_the_nearest_iterate_is_the_best():
    f = lambda z: jnp.stack([-z[:, 0], 0.5 * z[:, 1] ** 2], 1)  # noqa: E731
    sol = deq_jax.anderson(f, jnp.ones((1, 2)), tol=1e-6)
    assert jnp.abs(sol.value).max() < 1e-5


@pytest.mark.parametrize("solver", [*ACCELERATED, deq_jax.forward_iteration])
def test_an_absolute_tolerance_ends_a_solve_near_zero(solver):
    sol = solver(lambda z: 0.5 * z, jnp.ones((1, 1)), tol=1e-6, atol=1e-3, max_iter=50)
    assert sol.status[0] == Status.CONVERGED
    assert jnp.abs(sol.value) <= 2e-3  # atol / (1 - 0.5)
    before = solver(lambda z: 0.5 * z + 1, jnp.zeros((1, 1)), tol=1e-6, atol=0.0, max_iter=50)
    after = solver(lambda z: 0.5 * z + 1, jnp.zeros((1, 1)), tol=1e-6, max_iter=50)
    np.testing.assert_array_equal(before.value, after.value)


def test_an_absolute_tolerance_may_not_be_negative():
    with pytest.raises(ValueError, match="atol must not be negative"):
        deq_jax.anderson(lambda z: 0.5 * z, jnp.ones((1, 1)), atol=-1.0)


def test_a_rule_that_cannot_forget_gets_no_second_chance():
    blow = Rule(lambda z0: (), lambda z, fz, state, k: (z * jnp.inf, state))
    sol = solve(blow, lambda z: 0.5 * z + 1, jnp.ones((1, 1)), tol=1e-6, max_iter=50)
    assert (sol.status[0], sol.iterations[0]) == (Status.DIVERGED, 2)
    forgiven = solve(
        blow._replace(forget=lambda state, samples: state),
        lambda z: 0.5 * z + 1,
        jnp.ones((1, 1)),
        tol=1e-3,
        max_iter=50,
    )
    assert forgiven.status[0] == Status.CONVERGED


def verdicts(steps, sizes):
    """Believed and going back, after each evaluation of one sample."""
    seen, told = nothing_judged(1, jnp.float32), []
    for step, size in zip(steps, sizes, strict=True):
        believed, _, returns, _, seen = judge(seen, jnp.full(1, step), jnp.full(1, size), 1e-7)
        told.append((bool(believed[0]), bool(returns[0]), int(seen.plain[0])))
    return told


def test_beyond_what_was_walked_a_residual_must_have_fallen():
    assert [seen[0] for seen in verdicts([1.0, 0.9, 0.9, 0.05], [10.0, 11.0, 1e4, 1e4])] == [True, True, False, True]


def test_a_residual_that_is_rounded_away_has_not_fallen():
    assert not verdicts([1.0, 0.0], [10.0, 1e8])[-1][0]


def test_who_strays_stalls_or_is_not_finite_goes_back_and_for_longer_each_time():
    assert verdicts([1.0] + [1.0] * (STRAY + 1), [10.0] + [1e4] * (STRAY + 1))[-1][1:] == (True, HOLD)
    assert verdicts([1.0] * (STALL + 2), [10.0] * (STALL + 2))[-1][1:] == (True, HOLD)
    twice = verdicts([1.0, np.nan, *[1.0] * (HOLD + 1), np.nan], [10.0] * (HOLD + 4))
    assert [seen[2] for seen in twice if seen[1]] == [HOLD, 4 * HOLD]


def test_a_first_evaluation_that_is_not_finite_has_nothing_to_go_back_to():
    assert verdicts([np.nan], [np.nan]) == [(False, False, 0)]


@pytest.mark.parametrize(
    ("f", "start", "tol"),
    [
        # Two plateaus: mixtures walk out on one of them, where the residual is smallest and nothing near.
        (
            lambda z: z - 0.5 * (jax.nn.sigmoid(4 * z) - 0.9),
            np.float32([-1.6399884, -5.760429, 7.7030134, 9.896073]),
            1e-5,
        ),
        # An exponential: one mixture explodes within an evaluation, and lands where the way back is long.
        (
            lambda z: z - 0.01 * (jnp.exp(z) + jnp.array([1.0, 2.0, 3.0]) * z - 5),
            np.float64([-3.56612098, -3.19391362, -4.58395008]),
            1e-4,
        ),
    ],
    ids=["plateaus", "exponential"],
)
def test_what_mixtures_lead_far_astray_comes_back(x64, f, start, tol):
    plain, ours = (
        s(f, jnp.asarray(start)[None], tol=tol, max_iter=4000) for s in (deq_jax.forward_iteration, deq_jax.anderson)
    )
    np.testing.assert_array_equal([plain.status, ours.status], Status.CONVERGED)
    assert ours.iterations[0] < 15 * plain.iterations[0]


def test_every_other_time_a_sample_goes_back_to_where_it_started():
    seen, restarted = nothing_judged(1, jnp.float32), []
    for step in [1.0, *[np.nan] * 200]:
        *_, returns, restarts, seen = judge(seen, jnp.full(1, step), jnp.full(1, 10.0), 1e-7)
        restarted += [bool(restarts[0])] if returns[0] else []
    assert restarted[:3] == [False, True, False]


def test_an_explosion_within_one_evaluation_goes_back_at_once():
    assert verdicts([1.0, 10 * BLOWN], [10.0, 10 * BLOWN])[-1][1]
    assert not verdicts([1.0, 0.5 * BLOWN, 1e3 * BLOWN], [10.0, BLOWN, 1e3 * BLOWN])[-1][1]
