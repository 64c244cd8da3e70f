import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax import nn

TIGHT = functools.partial(deq_jax.anderson, tol=1e-6, max_iter=100)


class Noisy(nnx.Module):
    """A cell with a part that has state."""

    def __init__(self, part):
        self.linear = nnx.Linear(4, 4, kernel_init=nnx.initializers.normal(0.1), rngs=nnx.Rngs(0))
        self.part = part

    def __call__(self, z, x):
        return self.part(jnp.tanh(self.linear(z))) + x


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


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (lambda: nn.BatchNorm(4), "part.mean"),
        (lambda: nnx.BatchNorm(4, rngs=nnx.Rngs(0)), "part.mean"),
        (lambda: nnx.Dropout(0.5, rngs=nnx.Rngs(0)), "part.rngs"),
    ],
)
def test_a_cell_that_changes_its_state_is_refused(part, name):
    with pytest.raises(ValueError, match=rf"changes its own state inside the solve \(.*{name}.*Use GroupNorm"):
        nn.DEQ(Noisy(part()))(jnp.ones((2, 4)))


PARTS = [lambda: nn.BatchNorm(4), lambda: nnx.Dropout(0.5, rngs=nnx.Rngs(0))]


class Rematerialised(nnx.Module):
    """A cell that computes a part anew in the backward pass."""

    def __init__(self):
        self.linear = nnx.Linear(4, 4, kernel_init=nnx.initializers.normal(0.1), rngs=nnx.Rngs(0))

    @nnx.remat
    def part(self, z):
        return jnp.tanh(self.linear(z))

    def __call__(self, z, x):
        return self.part(z) + x


class Compiled(Rematerialised):
    """A cell that is compiled by itself."""

    @nnx.jit
    def part(self, z):
        return jnp.tanh(self.linear(z))


class Wrapped(nnx.Module):
    """A cell with a part that has state, within a transformation within another."""

    def __init__(self, part):
        self.noisy = Noisy(part)

    @nnx.jit
    @nnx.remat
    def evaluate(self, z, x):
        return self.noisy(z, x)

    def __call__(self, z, x):
        return self.evaluate(z, x)


@pytest.mark.parametrize("cell", [Noisy, Wrapped])
@pytest.mark.parametrize("part", PARTS)
def test_a_frozen_one_may_be_read(part, cell):
    layer = nn.DEQ(cell(part()), solver=TIGHT)
    layer.eval()
    assert (layer(jnp.ones((2, 4))).status == deq_jax.Status.CONVERGED).all()


@pytest.mark.parametrize("part", PARTS)
def test_one_that_changes_is_refused_within_transformations_too(part):
    with pytest.raises(ValueError, match=r"changes its own state inside the solve \(noisy\.part"):
        nn.DEQ(Wrapped(part()))(jnp.ones((2, 4)))


def normalised(wrapper):
    linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    cell = Noisy(wrapper(linear))
    cell.eval()
    return cell


@pytest.mark.parametrize(
    "make",
    [
        Rematerialised,
        Compiled,
        lambda: normalised(lambda linear: nnx.WeightNorm(linear, rngs=nnx.Rngs(0))),
        lambda: normalised(lambda linear: nnx.SpectralNorm(linear, rngs=nnx.Rngs(0))),
    ],
)
def test_parameters_may_be_computed_anew_in_the_solve(make):
    cell = make()
    x = 0.1 * jax.random.normal(jax.random.key(0), (2, 4))
    layer = nn.DEQ(cell, solver=functools.partial(TIGHT, max_iter=200))
    sol = layer(x)
    assert (sol.status == deq_jax.Status.CONVERGED).all()
    np.testing.assert_allclose(cell(sol.value, x), sol.value, atol=1e-5)
    gradient = nnx.grad(lambda layer: jnp.sum(layer(x).value))(layer)
    assert max(jnp.linalg.norm(leaf) for leaf in jax.tree.leaves(gradient)) > 0


def test_only_modules_are_wrapped():
    with pytest.raises(TypeError, match=r"use deq_jax\.fixed_point"):
        nn.DEQ(lambda z, x: z)


def test_a_cell_of_another_form_is_refused():
    class Doubling(nnx.Module):
        def __call__(self, z, x):
            return jnp.concatenate([z, x], axis=1)

    with pytest.raises(TypeError, match=r"z0 is float32\[2, 3\], f\(z0\) is float32\[2, 6\]"):
        nn.DEQ(Doubling())(jnp.ones((2, 3)))
