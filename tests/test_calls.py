"""Calls as users make them first: what is said then."""

import functools
import inspect
import pickle

import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

import deq_jax
from deq_jax import nn

X = jnp.ones((2, 3))


def cell(z, x):
    return 0.5 * z + x


class LinenCell(linen.Module):
    @linen.compact
    def __call__(self, z, x):
        return 0.5 * z + x


@pytest.mark.parametrize("solve", [deq_jax.fixed_point, deq_jax.fixed_point_jvp])
def test_what_f_depends_on_goes_in_by_position(solve):
    with pytest.raises(
        TypeError, match=rf"{solve.__name__}: .*keyword argument 'x'.*fixed_point\(f, z0, x, solver=solver\)"
    ):
        solve(cell, X, x=X)
    with pytest.raises(TypeError, match=r"missing .*'z0'.*fixed_point\(f, z0, x"):
        solve(cell)


@pytest.mark.parametrize("solver", [deq_jax.anderson, deq_jax.broyden, deq_jax.forward_iteration])
def test_a_solver_s_function_closes_over_it(solver):
    for call in (lambda: solver(cell, X, X), lambda: solver(cell, X, x=X)):
        with pytest.raises(TypeError, match=rf"{solver.__name__}: .*Close over.*lambda z: f\(z, x\), z0"):
            call()


def test_a_layer_s_solver_has_its_settings():
    for make in (
        lambda: nn.DEQ(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), tol=1e-3),
        lambda: nn.linen.DEQ(LinenCell(), tol=1e-3),
    ):
        with pytest.raises(TypeError, match=r"'tol'.*solver=functools\.partial\(deq_jax\.anderson, tol=1e-3\)"):
            make()


def test_an_error_within_a_call_is_none_of_the_call():
    def f(z):
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine(\n|$)"):
        deq_jax.anderson(f, X)


@pytest.mark.parametrize("function", [deq_jax.fixed_point, deq_jax.fixed_point_jvp, deq_jax.anderson])
def test_the_function_is_the_same_otherwise(function):
    assert list(inspect.signature(function).parameters)[:2] == ["f", "z0"]
    assert function.__doc__.startswith("Solve")
    assert pickle.loads(pickle.dumps(function)) is function
    settings = functools.partial(deq_jax.anderson, tol=1e-3)
    assert jax.tree.structure(settings) == jax.tree.structure(functools.partial(deq_jax.anderson, tol=1e-3))
