import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax
from deq_jax import Status
from tests.problems import linear_map, tanh_network

pytest.importorskip("lineax", reason="krylov() needs lineax: pip install 'deq_jax[krylov]'")
TIGHT = functools.partial(deq_jax.anderson, tol=1e-12, max_iter=300)


def loss(w, x, report=None, adjoint=None):
    sol = deq_jax.fixed_point(
        lambda z, x: {"a": jnp.tanh(z["b"] @ w) + x, "b": 0.5 * z["a"]},
        {"a": jnp.zeros_like(x), "b": jnp.zeros_like(x)},
        x,
        solver=TIGHT,
        adjoint=adjoint,
        report=report,
    )
    return jnp.sum(jnp.sin(sol.value["a"]))


def test_gradients_and_second_derivatives_are_those_of_a_dense_solve(x64):
    _, w, x = tanh_network(jax.random.key(0), 3, 5, radius=1.2, dtype=jnp.float64)
    adjoint = deq_jax.krylov(tol=1e-12)
    got, expected = (jax.grad(loss)(w, x, adjoint=a) for a in (adjoint, deq_jax.direct()))
    assert jnp.linalg.norm(got - expected) <= 1e-10 * jnp.linalg.norm(expected)

    def penalty(w, adjoint):
        return jnp.sum(jax.grad(loss)(w, x, adjoint=adjoint) ** 2)

    got, expected = (jax.jit(jax.grad(penalty), static_argnums=1)(w, a) for a in (adjoint, deq_jax.direct()))
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_the_report_is_honest_at_any_scale(scale):
    _, w, x = tanh_network(jax.random.key(1), 4, 6)
    report = jax.grad(lambda r: scale * loss(w, x, r, deq_jax.krylov(tol=1e-3)))(deq_jax.adjoint_report(4))
    assert (report.residual <= 1e-3).all()
    np.testing.assert_array_equal(report.status, Status.CONVERGED)
    assert (report.iterations >= 3).all()


def test_it_solves_what_contractions_cannot():
    # An adjoint equation of spectral radius 3.
    a = linear_map(jax.random.key(2), 8, 3.0)

    z_star = jnp.ones((2, 8)) @ jnp.linalg.inv(jnp.eye(8) - a)
    solved = deq_jax.Solution(z_star, jnp.zeros(2), jnp.ones(2, jnp.int32), jnp.zeros(2, jnp.int8))

    def gradient(adjoint):
        def total(x, report):
            return jnp.sum(
                deq_jax.fixed_point(
                    lambda z, x: z @ a + x, x, x, solver=lambda f, z0: solved, adjoint=adjoint, report=report
                ).value
            )

        return jax.grad(total, argnums=(0, 1))(jnp.ones((2, 8)), deq_jax.adjoint_report(2))

    got, report = gradient(deq_jax.krylov(tol=1e-4))
    np.testing.assert_array_equal(report.status, Status.CONVERGED)
    np.testing.assert_allclose(got, gradient(deq_jax.direct())[0], rtol=1e-2)
    _, report = gradient(deq_jax.implicit(functools.partial(deq_jax.forward_iteration, tol=1e-4)))
    assert (report.status != Status.CONVERGED).all()


def test_too_few_products_are_reported():
    _, w, x = tanh_network(jax.random.key(1), 4, 30, radius=1.5)
    adjoint = deq_jax.krylov(tol=1e-6, restart=2, max_iter=3)
    report = jax.grad(lambda r: loss(w, x, r, adjoint))(deq_jax.adjoint_report(4))
    np.testing.assert_array_equal(report.status, Status.MAX_ITER)


def test_settings_must_be_positive():
    with pytest.raises(ValueError, match="restart must be a whole number"):
        deq_jax.krylov(restart=0)
