"""The shared loop, driven by the simplest of rules and by one of a user's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import deq_jax
from deq_jax import Rule, Status, solve
from tests.problems import tanh_network

SOLVERS = [deq_jax.forward_iteration, deq_jax.anderson, deq_jax.broyden]
PLAIN = Rule(lambda z0: (), lambda z, fz, state, k: (fz, state))


def halve(z):
    return jax.tree.map(lambda leaf: 0.5 * leaf, z)


def test_every_evaluation_is_counted_and_traced():
    # From z = 1, z ← z/2 + 1 has the residuals ‖(1 − z/2) / (z/2 + 1)‖ at 1, 1.5, 1.75, ...
    sol = solve(PLAIN, lambda z: z / 2 + 1, jnp.ones((1, 1)), tol=0.05, max_iter=10, trace=True)
    z, expected = 1.0, []
    while not expected or expected[-1] > 0.05:
        expected.append((1 - z / 2) / (z / 2 + 1))
        z = z / 2 + 1
    assert sol.iterations[0] == len(expected)
    np.testing.assert_allclose(sol.trace[: len(expected), 0], expected, rtol=1e-6)  # float32
    assert np.isinf(sol.trace[len(expected) :]).all()
    assert sol.residual[0] == sol.trace[len(expected) - 1, 0]
    assert sol.status[0] == Status.CONVERGED


def test_no_trace_unless_asked_for():
    assert solve(PLAIN, halve, jnp.ones((1, 1)), tol=0.1, max_iter=3).trace is None


def test_max_iter_is_the_number_of_evaluations():
    sol = solve(PLAIN, lambda z: z + 1, jnp.ones((2, 1)), tol=1e-6, max_iter=7, trace=True)
    np.testing.assert_array_equal(sol.iterations, [7, 7])
    np.testing.assert_array_equal(sol.status, [Status.MAX_ITER] * 2)
    assert np.isfinite(sol.trace).all()


def test_a_start_at_the_equilibrium_costs_one_evaluation():
    sol = solve(PLAIN, halve, jnp.zeros((2, 3)), tol=1e-6, max_iter=9)
    np.testing.assert_array_equal(sol.iterations, [1, 1])
    np.testing.assert_array_equal(sol.value, 0)


def test_the_best_iterate_is_returned_with_its_own_residual():
    # The rule walks over the equilibrium 3 and away; its third iterate is the best.
    walk = Rule(lambda z0: (), lambda z, fz, state, k: (z + 1.25, state))
    sol = solve(walk, lambda z: 0.5 * z + 1.5, jnp.zeros((1, 1)), tol=1e-6, max_iter=6)
    np.testing.assert_allclose(sol.value, [[2.5]])
    np.testing.assert_allclose(sol.residual, [0.25 / 2.75], rtol=1e-6)  # float32
    assert sol.status[0] == Status.MAX_ITER


def test_samples_stop_and_freeze_one_by_one():
    rates = jnp.array([[0.1], [0.5], [0.9]])
    sol = solve(PLAIN, lambda z: rates * z + 1, jnp.zeros((3, 1)), tol=1e-3, max_iter=100, trace=True)
    counts = [int(n) for n in sol.iterations]
    assert counts == sorted(set(counts))
    np.testing.assert_array_equal(np.isfinite(sol.trace).sum(0), counts)
    for i, rate in enumerate([0.1, 0.5, 0.9]):
        alone = solve(PLAIN, lambda z, rate=rate: rate * z + 1, jnp.zeros((1, 1)), tol=1e-3, max_iter=100)
        assert alone.value[0, 0] == sol.value[i, 0]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_sample_that_diverges_is_named_and_harms_no_other(solver, bad):
    f, w, x = tanh_network(jax.random.key(0), 4, 5)
    clean = solver(lambda z: f(z, x, w), jnp.zeros_like(x), tol=1e-5)
    spoilt = solver(lambda z: f(z, x.at[1].set(bad), w), jnp.zeros_like(x), tol=1e-5)
    others = np.array([0, 2, 3])
    for field in ("value", "residual", "iterations", "status"):
        np.testing.assert_array_equal(getattr(clean, field)[others], getattr(spoilt, field)[others])
    assert spoilt.status[1] == Status.DIVERGED
    assert spoilt.iterations[1] == 1
    assert spoilt.residual[1] == jnp.inf
    np.testing.assert_array_equal(spoilt.value[1], 0)  # z0: no iterate had a finite evaluation


@pytest.mark.parametrize("solver", SOLVERS)
def test_divergence_on_the_way_returns_the_best_finite_iterate(solver):
    # Grows without bound: 1 + z² has no real fixed point.
    sol = solver(lambda z: 1 + z**2, jnp.zeros((1, 1)), max_iter=200)
    assert sol.status[0] in (Status.DIVERGED, Status.MAX_ITER)
    assert np.isfinite(sol.value).all()
    assert np.isfinite(sol.residual).all()
    np.testing.assert_allclose(
        sol.residual[0], abs(1 + sol.value[0, 0] ** 2 - sol.value[0, 0]) / (1 + sol.value[0, 0] ** 2), rtol=1e-5
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_states_are_pytrees_of_any_dtype(solver):
    z0 = {"a": jnp.zeros((2, 3, 4)), "b": (jnp.zeros((2,), jnp.bfloat16),)}
    sol = solver(lambda z: jax.tree.map(lambda leaf: 0.5 * leaf + 1, z), z0, tol=1e-2)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), sol.value) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), z0
    )
    # Relative residual 1e-2 at rate 1/2: within 2e-2 of the equilibrium, and bfloat16 has 8 bits.
    for leaf in jax.tree.leaves(sol.value):
        np.testing.assert_allclose(leaf.astype(jnp.float32), 2, rtol=3e-2)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (1,)])
def test_empty_batches_empty_states_and_scalars(solver, shape):
    sol = solver(lambda z: 0.5 * z + 1, jnp.zeros(shape), tol=1e-3)
    assert sol.value.shape == shape
    assert (sol.status == Status.CONVERGED).all()


def test_solves_under_jit_and_vmap():
    f, w, x = tanh_network(jax.random.key(0), 3, 4)

    def equilibrium(x):
        return deq_jax.anderson(lambda z: f(z, x, w), jnp.zeros_like(x), tol=1e-5)

    plain, twice = equilibrium(x), jnp.stack([x, 2 * x])
    mapped = jax.jit(jax.vmap(equilibrium))(twice)
    np.testing.assert_allclose(mapped.value[0], plain.value, rtol=1e-6)  # float32, another order of sums
    np.testing.assert_array_equal(mapped.iterations[0], plain.iterations)


def test_a_weakly_typed_start_is_accepted():
    sol = deq_jax.anderson(lambda z: 0.5 * z + jnp.ones((2, 1)), jnp.full((2, 1), 1.0), tol=1e-3)
    assert (sol.status == Status.CONVERGED).all()


@pytest.mark.parametrize("setting", [{"tol": 0.0}, {"tol": -1.0}, {"max_iter": 0}])
def test_settings_must_be_positive(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must be"):
        solve(PLAIN, halve, jnp.ones((1, 1)), **({"tol": 0.1, "max_iter": 5} | setting))


def test_an_output_of_another_form_is_refused():
    with pytest.raises(TypeError, match=r"z0 is float32\[1, 2\], f\(z0\) is float32\[1, 3\]"):
        solve(PLAIN, lambda z: jnp.ones((1, 3)), jnp.ones((1, 2)), tol=0.1, max_iter=5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_iterates_that_shrink_to_zero_are_followed(solver):
    # Every residual is about 1, so that no tolerance is met; the value is near the equilibrium all the same.
    sol = solver(halve, jnp.ones((1, 3)), max_iter=30)
    assert sol.status[0] in (Status.MAX_ITER, Status.CONVERGED)
    assert jnp.abs(sol.value).max() < 1e-6


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_refuses_to_be_differentiated(solver):
    def total(x):
        return solver(lambda z: 0.5 * z + x, jnp.zeros_like(x)).value.sum()

    for gradient in (jax.grad(total), jax.jit(jax.grad(total)), jax.grad(jax.jit(total))):
        with pytest.raises(TypeError, match=r"deq_jax\.fixed_point"):
            gradient(jnp.ones((2, 3)))
    # Forward mode cannot know whether a tangent is asked for.
    assert jnp.isnan(jax.jvp(total, (jnp.ones((2, 3)),), (jnp.ones((2, 3)),))[1])


def one_step_gradient(w, x):
    """The equilibrium held fixed, and one more evaluation that is differentiated."""
    z = lax.stop_gradient(deq_jax.anderson(lambda z: jnp.tanh(z @ w + x), jnp.zeros_like(x), tol=1e-6).value)
    return jnp.sum(jnp.tanh(z @ w + x)), None


def solution_beside_the_loss(w, x):
    sol = deq_jax.anderson(lambda z: jnp.tanh(z @ w + x), jnp.zeros_like(x), trace=True)
    return jnp.sum(jnp.tanh(x @ w)), sol


def warm_start(w, x):
    z0 = deq_jax.forward_iteration(lambda z: jnp.tanh(z @ w + x), jnp.zeros_like(x), max_iter=3).value
    return jnp.sum(deq_jax.fixed_point(lambda z: jnp.tanh(z @ w + x), z0).value), None


def constant_solve(w, x):
    start = deq_jax.anderson(lambda z: 0.5 * z + lax.stop_gradient(x), jnp.zeros_like(x)).value
    return jnp.sum(x @ w * start), None


@pytest.mark.long
@pytest.mark.parametrize("loss", [one_step_gradient, solution_beside_the_loss, warm_start, constant_solve])
def test_a_solver_may_stand_beside_what_is_differentiated(loss):
    w, x = 0.2 * jax.random.normal(jax.random.key(0), (3, 3)), jnp.ones((2, 3))
    plain = jax.grad(loss, has_aux=True)(w, x)[0]
    jitted = jax.jit(jax.grad(loss, has_aux=True))(w, x)[0]
    inner = jax.grad(jax.jit(loss), has_aux=True)(w, x)[0]
    mapped = jax.vmap(jax.grad(loss, has_aux=True), in_axes=(None, 0))(w, x[None])[0][0]
    over_mapped = jax.grad(lambda w: jax.vmap(lambda x: loss(w, x)[0])(x[None])[0])(w)
    assert jnp.linalg.norm(plain) > 0
    for other in (jitted, inner, mapped, over_mapped):
        np.testing.assert_allclose(other, plain, rtol=1e-5)  # float32, compiled otherwise


@pytest.mark.long
def test_mapped_over_it_has_no_derivative_either():
    _, w, x = tanh_network(jax.random.key(0), 4, 5)

    def total(w):
        return jnp.sum(jax.vmap(lambda x: deq_jax.anderson(lambda z: jnp.tanh(z @ w + x), x).value)(x[:, None]))

    with pytest.raises(TypeError, match=r"a solver has no derivative.*fixed_point"):
        jax.grad(total)(w)
    assert jnp.isnan(jax.jacfwd(total)(w)).all()


@pytest.mark.parametrize("run", [lambda f, z0: deq_jax.anderson(f, z0), lambda f, z0: deq_jax.fixed_point(f, z0)])
def test_an_error_within_f_says_what_f_was_given(run):
    with pytest.raises(TypeError) as caught:
        run(lambda z: z @ jnp.ones((3, 3)), jnp.zeros((2, 4)))
    assert "a state z of the form of z0: float32[2, 4]" in "".join(caught.value.__notes__)
