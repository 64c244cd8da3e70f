"""Splitting finds the one equilibrium, whatever the weights, and differentiates it; against dense solves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax
from deq_jax.nn.monotone import parametrisation
from deq_jax.operators import Dense, MonotoneMap
from tests.unchecked import unchecked

M, N = 0.5, 12


def drawn(seed, *shape, size=1.0):
    return size * jax.random.normal(jax.random.key(seed), shape)


def problem(far=3.0):
    """Weights far from those that a network starts with: the Jacobian's norm is about 40."""
    W = parametrisation.dense(drawn(0, N, N, size=far / 3), drawn(1, N, N, size=far), M)
    return MonotoneMap(W, drawn(2, 3, N))


rachford = functools.partial(deq_jax.peaceman_rachford, tol=1e-13, max_iter=2000)


def test_both_find_the_only_equilibrium_from_any_start_where_others_fail(x64):
    f = problem()
    found = rachford(f, jnp.zeros((3, N)))
    for seed in (3, 4):
        again = rachford(f, drawn(seed, 3, N, size=10))
        np.testing.assert_allclose(again.value, found.value, atol=1e-11)
    np.testing.assert_allclose(f(found.value), found.value, atol=1e-11)
    slowly = deq_jax.forward_backward(f, drawn(3, 3, N), tol=1e-8, max_iter=100_000)
    assert (slowly.status == deq_jax.Status.CONVERGED).all()
    np.testing.assert_allclose(slowly.value, found.value, atol=1e-4)
    for solver in (deq_jax.anderson, deq_jax.forward_iteration):
        assert (solver(f, jnp.zeros((3, N)), tol=1e-6, max_iter=200).status != deq_jax.Status.CONVERGED).any()
    assert found.iterations.max() < slowly.iterations.min() / 10


@pytest.mark.parametrize("alpha", [0.01, 1.0, 30.0])
def test_any_step_will_do_for_peaceman_rachford_and_its_residual_is_that_of_f(x64, alpha):
    f = problem(far=1.0)
    sol = deq_jax.peaceman_rachford(f, drawn(3, 3, N), alpha=alpha, tol=1e-6, max_iter=5000, trace=True)
    assert (sol.status == deq_jax.Status.CONVERGED).all()
    residual = jnp.linalg.norm(f(sol.value) - sol.value, axis=1) / jnp.linalg.norm(f(sol.value), axis=1)
    # Told of the resolvent and not measured: rounding is amplified by 1/alpha.
    np.testing.assert_allclose(sol.residual, residual, rtol=1e-4)
    # Infinite in between where f(z) is zero.
    last = jnp.max(jnp.where(jnp.isfinite(sol.trace), jnp.arange(1, 5001)[:, None], 0), axis=0)
    assert (last == sol.iterations).all()


def test_forward_backward_keeps_its_promised_rate(x64):
    f = problem(far=1.0)
    exact, L = rachford(f, jnp.zeros((3, N))).value, float(f.W.norm())
    rate = (1 - (M / L) ** 2) ** 0.5
    z = jnp.zeros((3, N))
    ends = [deq_jax.forward_backward(f, z, tol=1e-14, max_iter=k).value for k in (100, 300)]
    early, late = (jnp.linalg.norm(end - exact, axis=1) for end in ends)
    assert (late <= early * rate**199 * 1.01).all()  # the last evaluation only measures


def test_a_step_that_may_diverge_is_named_with_the_safe_one():
    f = problem()
    safe = float(f.W.m / f.W.norm() ** 2)
    with pytest.raises(ValueError, match=f"alpha=1 is too long a step.*m/L² = {safe:.3g}"):
        deq_jax.forward_backward(f, jnp.zeros((3, N)), alpha=1.0)
    status = jax.jit(lambda f: deq_jax.forward_backward(f, jnp.zeros((3, N)), alpha=1.0).status)(f)
    assert (status != deq_jax.Status.CONVERGED).all()


@pytest.mark.parametrize("solver", [deq_jax.peaceman_rachford, deq_jax.forward_backward])
def test_another_function_is_refused(solver):
    with pytest.raises(TypeError, match=r"takes a deq_jax.operators.MonotoneMap.*got function"):
        unchecked(solver)(lambda z: z / 2, jnp.ones((1, 2)))
    with pytest.raises(ValueError, match="alpha must be positive"):
        solver(problem(), jnp.zeros((3, N)), alpha=0.0)


def total(z):
    return jnp.sum(jnp.sin(z) * jnp.arange(N))


def solved(W, b, adjoint=None, solver=rachford):
    f = MonotoneMap(Dense(W, M), b)
    return total(deq_jax.monotone_fixed_point(f, jnp.zeros_like(b), solver=solver, adjoint=adjoint).value)


def solved_densely(W, b):
    z = jax.lax.stop_gradient(rachford(MonotoneMap(Dense(W, M), b), jnp.zeros_like(b)).value)
    D = (z @ W.T + b > 0).astype(W.dtype)
    return total(jax.vmap(lambda D, b: jnp.linalg.solve(jnp.eye(N) - D[:, None] * W, D * b))(D, b))


def close(ours, dense):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(dense), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * jnp.abs(b).max())


def test_gradients_are_those_of_a_dense_solve_to_second_order(x64):
    f = problem()
    W, b = f.W.W, f.b
    close(jax.jit(jax.grad(solved, (0, 1)))(W, b), jax.grad(solved_densely, (0, 1))(W, b))
    direction = drawn(5, N, N)

    def along(function):
        return jax.grad(lambda W, b: jnp.vdot(jax.grad(function)(W, b), direction), (0, 1))(W, b)

    close(along(solved), along(solved_densely))


@pytest.mark.parametrize("adjoint", [deq_jax.direct(), deq_jax.or_nan(deq_jax.implicit(rachford))])
def test_other_adjoints_serve_as_well(x64, adjoint):
    f = problem()
    close(jax.grad(solved)(f.W.W, f.b, adjoint), jax.grad(solved_densely)(f.W.W, f.b))


def test_the_backward_solve_reports_itself():
    f = problem(far=1.0)

    def loss(b, report):
        g = MonotoneMap(f.W, b)
        solver = functools.partial(deq_jax.peaceman_rachford, tol=1e-3)
        return total(deq_jax.monotone_fixed_point(g, jnp.zeros_like(b), solver=solver, report=report).value)

    report = jax.grad(loss, argnums=1)(f.b, deq_jax.adjoint_report(3))
    assert (report.status == deq_jax.Status.CONVERGED).all()
    assert (report.residual <= 1e-3).all()
    assert (report.iterations > 1).all()
