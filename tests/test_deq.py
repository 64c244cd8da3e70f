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
