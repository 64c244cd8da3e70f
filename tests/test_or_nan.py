"""A gradient whose adjoint solve fell short is no number, where that is asked for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax
from deq_jax import Status
from tests.problems import network_loss

EXACT = deq_jax.implicit(functools.partial(deq_jax.anderson, tol=1e-12, max_iter=300))
SHORT = deq_jax.implicit(functools.partial(deq_jax.forward_iteration, tol=1e-4, max_iter=12))
TWO_STEPS = functools.partial(deq_jax.forward_iteration, tol=0.1, max_iter=2)
RATES = jnp.array([[0.1], [0.2], [0.9]])  # by 12 steps of 1e-4 the last has not come to rest


def equilibria(x, adjoint, report=None):
    solver = functools.partial(deq_jax.anderson, tol=1e-5)
    return deq_jax.fixed_point(
        lambda z, x: RATES * jnp.sin(z) + x, jnp.zeros_like(x), x, solver=solver, adjoint=adjoint, report=report
    ).value


MESH = jax.make_mesh((1,), ("one",), axis_types=(jax.sharding.AxisType.Auto,))
WAYS = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "vmap": lambda f: lambda x: jax.vmap(f)(jnp.stack([x, x]))[1],
    "shard_map": lambda f: jax.shard_map(f, mesh=MESH, in_specs=jax.P("one"), out_specs=jax.P("one"), check_vma=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_sample_whose_adjoint_solve_fell_short_has_no_number_for_a_gradient(way):
    def gradient(adjoint):
        solve = WAYS[way](lambda x: equilibria(x, adjoint))
        return jax.grad(lambda x: jnp.sum(solve(x) ** 2))(0.1 * jnp.ones((3, 2)))

    plain, checked = gradient(SHORT), gradient(deq_jax.or_nan(SHORT))
    np.testing.assert_array_equal(jnp.isnan(checked).all(axis=1), [False, False, True])
    np.testing.assert_array_equal(checked[:2], plain[:2])
    assert jnp.isfinite(plain).all()


@pytest.mark.parametrize("adjoint", [EXACT, deq_jax.krylov(tol=1e-6), deq_jax.direct()])
def test_a_gradient_that_is_right_stays(x64, adjoint):
    _, (w, x), _, loss = network_loss()
    args = w, x, jnp.zeros(8, jnp.float64)
    ours, plain = (
        jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*args, a)[0] for a in (deq_jax.or_nan(adjoint), adjoint)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, plain)


def test_so_do_second_derivatives_and_what_falls_short_there_is_no_number_either(x64):
    x = 0.1 * jnp.ones((3, 1))

    def second(adjoint):
        def loss(x):
            return jnp.sum(equilibria(x, adjoint) ** 2)

        return jax.jit(jax.grad(lambda x: jnp.sum(jax.grad(loss)(x) ** 2)))(x)

    np.testing.assert_allclose(second(deq_jax.or_nan(EXACT)), second(EXACT), rtol=1e-10)

    def falls_short_above(transposed, y, fixed_point):
        """Right to first order; the solve for the next is cut off."""
        g = deq_jax.direct()(transposed, y, fixed_point)
        cut = fixed_point(lambda g, y: transposed(g) + y, jax.lax.stop_gradient(g.value), y, solver=TWO_STEPS)
        return g._replace(value=cut.value)

    np.testing.assert_array_equal(jnp.isnan(second(deq_jax.or_nan(falls_short_above))).ravel(), [False, False, True])


def test_the_report_is_the_same_and_a_sample_without_a_cotangent_has_converged():
    x, report = 0.1 * jnp.ones((3, 2)), deq_jax.adjoint_report(3)

    def first_two(x, report, adjoint):
        return jnp.sum(equilibria(x, adjoint, report)[:2])

    for adjoint in (SHORT, deq_jax.or_nan(SHORT)):
        gradient, told = jax.grad(first_two, argnums=(0, 1))(x, report, adjoint)
        np.testing.assert_array_equal(gradient[2], 0)
        np.testing.assert_array_equal(told.status, Status.CONVERGED)


def test_one_of_a_user_s_own_is_believed():
    def own(transposed, y, fixed_point):
        status = jnp.array([Status.CONVERGED, Status.MAX_ITER, Status.DIVERGED], jnp.int8)
        return deq_jax.jacobian_free()(transposed, y, fixed_point)._replace(status=status)

    gradient = jax.grad(lambda x: jnp.sum(equilibria(x, deq_jax.or_nan(own))))(jnp.ones((3, 1)))
    np.testing.assert_array_equal(jnp.isnan(gradient).ravel(), [False, True, True])


@pytest.mark.parametrize("adjoint", [deq_jax.phantom(3), deq_jax.jacobian_free()])
def test_an_adjoint_that_measures_nothing_cannot_be_judged(adjoint):
    with pytest.raises(ValueError, match=r"measure nothing.*implicit\(solver\), krylov\(\) or direct\(\)"):
        deq_jax.or_nan(adjoint)


def test_what_is_no_adjoint_cannot_be_judged():
    with pytest.raises(TypeError, match="adjoint must be"):
        deq_jax.or_nan(deq_jax.anderson)
