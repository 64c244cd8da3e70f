"""Tangents and cotangents of the primitive for forward mode, too, are solved for the samples that still need it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax
from tests.test_working_set import both, cell, own_rule, problem


def solved(solver, mark, x, weight, z0, tangent_solver=None):
    return deq_jax.fixed_point_jvp(cell, z0, mark(x), weight, solver=solver, tangent_solver=tangent_solver).value


@pytest.mark.long
@pytest.mark.parametrize("solver", [deq_jax.anderson, own_rule])
def test_tangents_and_cotangents_are_the_same(solver, x64):
    solver = functools.partial(solver, tol=1e-9, max_iter=400)
    z0, x, weight = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), problem())

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(mark):
        def total(x, weight):
            return jnp.sum(jnp.sin(solved(solver, mark, x, weight, z0)))

        one = jax.tree.map(jnp.ones_like, (x, weight))
        return jax.jvp(total, (x, weight), one), jax.grad(total, argnums=(0, 1))(x, weight)

    whole, groups = both(derivatives)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), whole, groups)


@pytest.mark.long
def test_second_derivatives_under_vmap_are_the_same(x64):
    solver = functools.partial(deq_jax.anderson, tol=1e-11, max_iter=300)
    z0, x, weight = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), problem())

    @functools.partial(jax.jit, static_argnums=0)
    def curvatures(mark):
        def total(scale, start):
            return jnp.sum(jnp.sin(solved(solver, mark, x, scale * weight, z0 + start)))

        return jax.vmap(jax.hessian(total), (None, 0))(jnp.float64(0.9), jnp.array([0.0, 0.1]))

    np.testing.assert_allclose(*both(curvatures), rtol=1e-7)


@pytest.mark.long
def test_both_solves_can_be_had_for_some_samples():
    z0, x, weight = problem()
    had = []

    def comparing(f, b):
        """Solves, and gives NaN where some samples are not mapped as they are among all."""
        had.append(hasattr(f, "for_rows"))
        solution = deq_jax.anderson(f, b, tol=1e-4, max_iter=60)
        if not had[-1]:
            return solution
        rows = jnp.array([3, 1, 7, 5])
        is_same = jnp.allclose(f.for_rows(rows)(2 * b[rows]), f(2 * b)[rows], rtol=1e-4, atol=1e-5)
        return solution._replace(value=jnp.where(is_same, solution.value, jnp.nan))

    @functools.partial(jax.jit, static_argnums=0)
    def tangents(mark):
        solve = functools.partial(solved, functools.partial(deq_jax.anderson, tol=1e-4, max_iter=60), mark, x)
        tangent = jax.jvp(lambda w: solve(w, z0, tangent_solver=comparing), (weight,), (weight,))[1]
        return tangent, jax.grad(lambda w: jnp.sum(solve(w, z0, tangent_solver=comparing)))(weight)

    whole, groups = both(tangents)
    assert sorted(set(had)) == [False, True]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-2, atol=1e-2), whole, groups)
