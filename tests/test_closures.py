"""Solvers and adjoints that hold what is traced: their settings may, and the equilibrium does not depend on them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax
from deq_jax.gradients.closures import take_out
from tests.problems import tanh_network


class Settings(NamedTuple):
    tol: jax.Array


class Holder:
    def __init__(self, settings):
        self.settings = settings

    def solve(self, f, z0):
        return deq_jax.anderson(f, z0, tol=self.settings.tol, max_iter=200)


jax.tree_util.register_pytree_node(Holder, lambda h: ((h.settings,), None), lambda _, parts: Holder(*parts))


def in_a_closure(tol):
    return lambda f, z0: deq_jax.anderson(f, z0, tol=tol, max_iter=200)


def in_a_default(tol):
    def solver(f, z0, tol=tol, *, shift=0 * tol):
        return deq_jax.anderson(f, z0, tol=tol + shift, max_iter=200)

    return solver


def in_a_pytree(tol):
    settings = {"a": Settings(tol)}
    return lambda f, z0: deq_jax.anderson(f, z0, tol=settings["a"].tol, max_iter=200)


def in_a_start(tol):
    return lambda f, z0: deq_jax.anderson(f, z0 + 1e3 * tol, tol=1e-12, max_iter=200)


SOLVERS = [
    in_a_closure,
    in_a_default,
    in_a_pytree,
    in_a_start,
    lambda tol: functools.partial(deq_jax.anderson, tol=tol, max_iter=200),
    lambda tol: Holder(Settings(tol)).solve,
]


def derivatives(primitive, held, settings):
    """Value and gradient where ``settings(tol)`` hold a tol that depends on what is differentiated, or on nothing."""
    f, w, x = tanh_network(jax.random.key(0), 3, 4, dtype=jnp.float64)

    def loss(w):
        tol = 1e-12 * (1 + jnp.sum(w) ** 2 if held else 1)
        return jnp.sum(primitive(f, jnp.zeros_like(x), x, w, **settings(tol)).value ** 2)

    return w, loss


TRANSFORMS = {
    "grad": lambda loss: jax.grad(loss),
    "jit of grad": lambda loss: jax.jit(jax.grad(loss)),
    "grad of jit": lambda loss: jax.grad(jax.jit(loss)),
    "grad of vmap": lambda loss: jax.grad(lambda w: jax.vmap(loss)(jnp.stack([w, w])).sum() / 2),
}


@pytest.mark.parametrize(
    ("primitive", "make"),
    [*((deq_jax.fixed_point, make) for make in SOLVERS), (deq_jax.fixed_point_jvp, in_a_closure)],
)
def test_a_solver_may_hold_what_is_differentiated(x64, primitive, make):
    w, loss = derivatives(primitive, True, lambda tol: {"solver": make(tol)})
    _, expected = derivatives(primitive, False, lambda tol: {"solver": make(tol)})
    # Both stop at 1e-12, at other iterates where the start differs.
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(w), jax.jit(jax.grad(expected))(w), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    "settings",
    [
        lambda tol: {"adjoint": deq_jax.implicit(in_a_closure(tol)), "solver": in_a_closure(1e-12)},
        lambda tol: {"adjoint": deq_jax.krylov(tol=1e-12), "solver": in_a_closure(tol)},
    ],
)
def test_an_adjoint_may_too_under_any_transformation(x64, transform, settings):
    w, loss = derivatives(deq_jax.fixed_point, True, settings)
    _, expected = derivatives(deq_jax.fixed_point, False, settings)
    expected = jax.jit(jax.grad(expected))(w)
    np.testing.assert_allclose(TRANSFORMS[transform](loss)(w), expected, rtol=1e-8, atol=1e-10)


def test_second_derivatives_and_tangents_too(x64):
    w, loss = derivatives(deq_jax.fixed_point, True, lambda tol: {"solver": in_a_closure(tol)})
    _, both = derivatives(
        deq_jax.fixed_point_jvp, True, lambda tol: {"solver": in_a_closure(1e-12), "tangent_solver": in_a_closure(tol)}
    )
    by_reverse = jax.jit(jax.grad(lambda w: jnp.sum(jax.grad(loss)(w) ** 2)))(w)
    by_forward = jax.jit(lambda w: jax.jvp(jax.grad(both), (w,), (2 * jax.grad(both)(w),))[1])(w)
    np.testing.assert_allclose(by_reverse, by_forward, rtol=1e-7, atol=1e-9)


def test_what_holds_no_tracer_stays_what_it_is():
    solver = functools.partial(in_a_closure(jnp.float32(1e-3)), a={"b": [1, None]})
    held, put_back = take_out(solver)
    assert held == []
    assert put_back(held) is solver


def test_a_function_that_calls_itself_and_one_not_yet_whole_are_left_in_peace():
    def build(tol):
        def solver(f, z0, again=True):
            return solver(f, z0, False) if again else later(f, z0)

        held, put_back = take_out(solver)  # its cell of ``later`` is empty
        later = in_a_closure(tol)
        return put_back(held)(lambda z: 0.5 * z + 1, jnp.zeros((1, 1))).value

    np.testing.assert_allclose(jax.jit(build)(1e-6), 2, rtol=1e-5)
