"""What a cell holds beside its parameters, and what it may do with that inside a solve."""

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


@pytest.mark.parametrize("held", [{"a": jnp.ones(2), "b": jnp.ones(1)}, (jnp.ones(2), jnp.ones(1)), jnp.ones(3)])
def test_a_variable_may_hold_any_pytree(held):
    class Shifted(nnx.Module):
        def __init__(self):
            self.gain, self.held = nnx.Param(jnp.float32(0.5)), nnx.Variable(held)

        def __call__(self, z, x):
            return self.gain[...] * z + x + sum(map(jnp.sum, jax.tree.leaves(self.held.get_value())))

    layer = nn.DEQ(Shifted(), solver=functools.partial(deq_jax.anderson, tol=1e-6))
    x = jnp.ones((2, 3))
    np.testing.assert_allclose(layer(x).value, 8, rtol=1e-5)
    # z = 4 / (1 − g), so dz/dg = 4 / (1 − g)² for each of six numbers.
    gradient = nnx.grad(lambda layer: jnp.sum(layer(x).value))(layer)
    np.testing.assert_allclose(gradient["cell"]["gain"][...], 96, rtol=1e-4)


def test_a_variable_may_be_a_reference():
    class Shifted(nnx.Module):
        def __init__(self):
            self.gain, self.shift = nnx.Param(jnp.float32(0.5), ref=True), nnx.Variable(jnp.ones(3), ref=True)

        def __call__(self, z, x):
            return self.gain[...] * z + x + self.shift[...]

    np.testing.assert_allclose(nn.DEQ(Shifted())(jnp.ones((2, 3))).value, 4, rtol=2e-2)  # residuals of 1e-2


def test_one_that_changes_within_a_pytree_is_refused_by_its_name():
    class Counting(nnx.Module):
        def __init__(self):
            self.seen = nnx.Variable({"sum": jnp.zeros(()), "fixed": jnp.zeros(())})

        def __call__(self, z, x):
            self.seen.set_value(self.seen.get_value() | {"sum": z.sum()})
            return 0.5 * z + x

    with pytest.raises(ValueError, match=r"changes its own state inside the solve \(seen\.sum\)"):
        nn.DEQ(Counting())(jnp.ones((2, 3)))


class Sowing(nnx.Module):
    """A cell that tells of a hidden value."""

    def __init__(self, kind=nnx.Intermediate):
        self.W = nnx.Param(0.2 * jax.random.normal(jax.random.key(2), (3, 3)))
        self.kind = kind

    def __call__(self, z, x):
        h = z @ self.W
        self.sow(self.kind, "h", h)
        return jnp.tanh(h) + x


class Penalty(nnx.Intermediate):
    """A user's own kind of what is sown."""


@pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")
@pytest.mark.parametrize("kind", [nnx.Intermediate, Penalty])
def test_what_a_cell_sows_comes_out_once_at_the_equilibrium_with_its_gradient(x64, kind):
    x = jax.random.normal(jax.random.key(0), (4, 3))
    layer = nn.DEQ(Sowing(kind), solver=functools.partial(TIGHT, tol=1e-12))

    def left(layer):
        layer(x)
        (h,) = jax.tree.leaves(nnx.pop(layer, nnx.Intermediate))
        return h

    def captured(layer):
        _, state = nnx.capture(layer, kind)(x)
        (h,) = jax.tree.leaves(state)
        return h

    def by_hand(layer):
        W = layer.cell.W[...]
        return deq_jax.unrolled(lambda z: jnp.tanh(z @ W) + x, jnp.zeros_like(x), steps=200) @ W

    left(layer)  # and once more below: what was sown before is gone
    expected = nnx.grad(lambda layer: jnp.sum(by_hand(layer) ** 2))(layer)["cell"]["W"][...]
    for told in (left, captured):
        np.testing.assert_allclose(nnx.jit(told)(layer), by_hand(layer), rtol=1e-9)  # the solve stops at 1e-12
        gradient = nnx.grad(lambda layer, told=told: jnp.sum(told(layer) ** 2))(layer)["cell"]["W"][...]
        np.testing.assert_allclose(gradient, expected, rtol=1e-8)


@pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")
def test_what_is_sown_as_another_kind_is_refused_in_its_own_words():
    with pytest.raises(ValueError, match=r"inside the solve \(h.*\).*What a cell sows is .* an nnx\.Intermediate"):
        nn.DEQ(Sowing(nnx.Variable))(jnp.ones((2, 3)))


def test_a_perturbation_s_gradient_is_the_adjoint_solution(x64):
    class Perturbed(nnx.Module):
        def __call__(self, z, x):
            return self.perturb("h", 0.5 * z + x)

    layer, x = nn.DEQ(Perturbed(), solver=functools.partial(TIGHT, tol=1e-12)), jnp.ones((2, 3))
    _, perturbations = nnx.capture(layer, nnx.Perturbation)(x)

    def loss(perturbations, layer):
        return nnx.capture(layer, nnx.Intermediate, init=perturbations)(x)[0].value.sum()

    # It is added in every evaluation: z = 0.5 z + x + h.
    (gradient,) = jax.tree.leaves(nnx.grad(loss)(perturbations, layer))
    np.testing.assert_allclose(gradient, 2, rtol=1e-9)
