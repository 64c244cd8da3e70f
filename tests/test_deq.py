import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax import nn

TIGHT = functools.partial(deq_jax.anderson, tol=1e-6, max_iter=100)


def test_the_layer_s_output_is_the_cell_s_equilibrium():
    cell = nn.FeedForwardCell(3, 5, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (4, 3))
    sol = nn.DEQ(cell, solver=TIGHT)(x)
    assert sol.value.shape == (4, 5)
    np.testing.assert_allclose(cell(sol.value, x), sol.value, atol=1e-5)
    assert (sol.status == deq_jax.Status.CONVERGED).all()


def test_gradients_reach_the_cell_s_parameters_and_the_injection(x64):
    cell = nn.FeedForwardCell(3, 5, kernel_init=nnx.initializers.normal(0.3), param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    layer = nn.DEQ(cell, solver=functools.partial(TIGHT, tol=1e-13))
    x = jax.random.normal(jax.random.key(0), (4, 3), jnp.float64)
    graph, state = nnx.split(layer)

    def by_layer(state, x):
        return jnp.sum(nnx.merge(graph, state)(x).value ** 2)

    def by_hand(state, x):
        cell = nnx.merge(graph, state).cell
        z = cell.initial_state(x)
        return jnp.sum(deq_jax.unrolled(lambda z: cell(z, x), z, steps=300) ** 2)

    state = nnx.as_pure(state)
    ours, expected = (jax.grad(loss, argnums=(0, 1))(state, x) for loss in (by_layer, by_hand))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours, expected)


def test_nnx_transformations_work_too():
    layer = nn.DEQ(nn.FeedForwardCell(3, 5, rngs=nnx.Rngs(0)), solver=TIGHT)
    x = jax.random.normal(jax.random.key(0), (4, 3))
    gradient = nnx.jit(nnx.grad(lambda layer, x: jnp.sum(layer(x).value)))(layer, x)
    assert jnp.linalg.norm(gradient.cell.U[...]) > 0


def test_a_given_start_is_used():
    layer = nn.DEQ(nn.FeedForwardCell(3, 5, rngs=nnx.Rngs(0)), solver=TIGHT)
    x = jnp.ones((2, 3))
    cold = layer(x)
    warm = layer(x, z0=cold.value)
    assert (warm.iterations < cold.iterations).all()


def test_the_report_reaches_through_the_layer():
    layer = nn.DEQ(nn.FeedForwardCell(3, 5, rngs=nnx.Rngs(0)), solver=TIGHT)
    report = jax.grad(lambda report: jnp.sum(layer(jnp.ones((2, 3)), report=report).value))(deq_jax.adjoint_report(2))
    assert (report.iterations > 0).all()


def test_an_injection_that_no_state_is_like_needs_a_start():
    class Masked(nnx.Module):
        def __call__(self, z, x):
            injected, mask = x
            return 0.5 * z * mask + injected

    x = (jnp.ones((2, 3)), jnp.array([[True, False, True]] * 2))
    with pytest.raises(TypeError, match=r"zeros like x.*x\[1\] is of dtype bool.*initial_state\(x\)"):
        nn.DEQ(Masked())(x)
    value = nn.DEQ(Masked())(x, z0=jnp.zeros((2, 3))).value
    np.testing.assert_allclose(value[0], [2, 1, 2], rtol=2e-2)  # residuals of 1e-2


def test_only_modules_are_wrapped():
    with pytest.raises(TypeError, match=r"use deq_jax\.fixed_point"):
        nn.DEQ(lambda z, x: z)


def test_a_cell_of_another_form_is_refused():
    class Doubling(nnx.Module):
        def __call__(self, z, x):
            return jnp.concatenate([z, x], axis=1)

    with pytest.raises(TypeError, match=r"z0 is float32\[2, 3\], f\(z0\) is float32\[2, 6\]"):
        nn.DEQ(Doubling())(jnp.ones((2, 3)))


@pytest.mark.parametrize("setting", [{"solver": deq_jax.direct()}, {"adjoint": deq_jax.anderson}])
def test_a_layer_refuses_what_is_no_solver_or_adjoint_when_it_is_made(setting):
    with pytest.raises(TypeError, match=f"^{next(iter(setting))} must be"):
        nn.DEQ(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), **setting)
