import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import deq_jax
from deq_jax import nn

TIGHT = functools.partial(deq_jax.anderson, tol=1e-6, max_iter=100)
SMALL = linen.initializers.normal(0.3)


class Cell(linen.Module):
    """``tanh(W z + U x + b)``, and whatever a part of its own adds to that."""

    features: int = 4
    part: Any = None
    param_dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, z, x):
        dense = functools.partial(linen.Dense, self.features, kernel_init=SMALL, param_dtype=self.param_dtype)
        z = jnp.tanh(dense(use_bias=False, name="W")(z) + dense(name="U")(x))
        return z if self.part is None else self.part(z)

    def initial_state(self, x):
        return jnp.zeros((x.shape[0], self.features), x.dtype)


class Model(linen.Module):
    """A layer in a model, with layers around it."""

    @linen.compact
    def __call__(self, x):
        solution = nn.linen.DEQ(Cell(5), solver=TIGHT)(linen.Dense(5)(x))
        return linen.Dense(2)(solution.value)


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (4, 3))


def test_the_layer_s_output_is_the_cell_s_equilibrium(x):
    layer = nn.linen.DEQ(Cell(), solver=TIGHT)
    variables = layer.init(jax.random.key(1), x)
    sol = layer.apply(variables, x)
    assert sol.value.shape == (4, 4)
    assert (sol.status == deq_jax.Status.CONVERGED).all()
    again = Cell().apply({"params": variables["params"]["cell"]}, sol.value, x)
    np.testing.assert_allclose(again, sol.value, atol=1e-5)


def test_its_parameters_are_the_cell_s(x):
    key = jax.random.key(1)
    own = jax.eval_shape(Cell().init, key, jnp.zeros((4, 4)), x)["params"]
    lifted = jax.eval_shape(nn.linen.DEQ(Cell()).init, key, x)["params"]
    assert {"cell": own} == lifted


def test_gradients_agree_with_a_dense_solve(x64):
    """The implicit function theorem with matrices, sample by sample, against the layer inside jit."""
    x = jax.random.normal(jax.random.key(0), (3, 2), jnp.float64)
    cell = Cell(4, param_dtype=jnp.float64)
    layer = nn.linen.DEQ(cell, solver=functools.partial(TIGHT, tol=1e-13))
    variables = layer.init(jax.random.key(1), x)
    loss = jax.jit(lambda variables, x: jnp.sum(layer.apply(variables, x).value ** 2))
    ours = jax.grad(loss, argnums=(0, 1))(variables, x)

    z_star = layer.apply(variables, x).value
    theta = ({"params": variables["params"]["cell"]}, x)

    def f(z, theta, n):
        return cell.apply(theta[0], z[None], theta[1][n][None])[0]

    def gradient(n):
        jacobian = jax.jacobian(f)(z_star[n], theta, n)
        g = jnp.linalg.solve((jnp.eye(4) - jacobian).T, 2 * z_star[n])
        return jax.vjp(lambda theta: f(z_star[n], theta, n), theta)[1](g)[0]

    cell_bar, x_bar = jax.tree.map(lambda *leaves: sum(leaves), *(gradient(n) for n in range(3)))
    expected = ({"params": {"cell": cell_bar["params"]}}, x_bar)
    # Both solves stop at 1e-13.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours, expected)


def test_it_is_a_layer_among_others(x):
    model = Model()
    variables = model.init(jax.random.key(1), x)
    gradient = jax.grad(lambda v: jnp.sum(model.apply(v, x) ** 2))(variables)
    assert set(gradient["params"]) == {"Cell_0", "Dense_0", "Dense_1"}
    assert all(jnp.linalg.norm(leaf) > 0 for leaf in jax.tree.leaves(gradient))


def test_it_works_inside_linen_s_own_transformations(x):
    plain, again = nn.linen.DEQ(Cell(), solver=TIGHT), linen.remat(nn.linen.DEQ)(Cell(), solver=TIGHT)
    variables = plain.init(jax.random.key(1), x)
    losses = [lambda v, layer=layer: jnp.sum(layer.apply(v, x).value) for layer in (plain, again)]
    ours, expected = (jax.grad(loss)(variables) for loss in losses)
    # The same solve, recomputed.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, expected)


def test_a_given_start_is_used(x):
    layer = nn.linen.DEQ(Cell(), solver=TIGHT)
    variables = layer.init(jax.random.key(1), x)
    cold = layer.apply(variables, x)
    warm = layer.apply(variables, x, z0=cold.value)
    assert (warm.iterations < cold.iterations).all()


def test_without_an_initial_state_the_solve_starts_from_zeros_like_x():
    class Residual(linen.Module):
        @linen.compact
        def __call__(self, z, x):
            return jnp.tanh(linen.Dense(3, kernel_init=SMALL)(z)) + x

    layer = nn.linen.DEQ(Residual(), solver=TIGHT)
    sol = layer.apply(layer.init(jax.random.key(0), jnp.ones((2, 3))), jnp.ones((2, 3)))
    assert sol.value.shape == (2, 3)


def test_the_report_reaches_through_the_layer(x):
    layer = nn.linen.DEQ(Cell(), solver=TIGHT)
    variables = layer.init(jax.random.key(1), x)

    def loss(report):
        return jnp.sum(layer.apply(variables, x, report=report).value)

    report = jax.grad(loss)(deq_jax.adjoint_report(4))
    assert (report.iterations > 0).all()


def test_a_batch_norm_in_training_is_refused(x):
    layer = nn.linen.DEQ(Cell(part=linen.BatchNorm(use_running_average=False)))
    with pytest.raises(ValueError, match=r"changes its own variables inside the solve.*GroupNorm.*Flax says"):
        layer.apply(layer.init(jax.random.key(0), x), x)


def test_a_fresh_dropout_mask_is_refused(x):
    layer = nn.linen.DEQ(Cell(part=linen.Dropout(0.5, deterministic=False)))
    with pytest.raises(ValueError, match=r"draws random numbers inside the solve.*Flax says"):
        layer.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, x)


@pytest.mark.parametrize(
    "part", [linen.BatchNorm(use_running_average=True), linen.Dropout(0.5, deterministic=True)], ids=["norm", "dropout"]
)
def test_a_frozen_one_may_be_read(x, part):
    layer = nn.linen.DEQ(Cell(part=part), solver=TIGHT)
    variables = layer.init(jax.random.key(0), x)
    assert (layer.apply(variables, x).status == deq_jax.Status.CONVERGED).all()


@pytest.mark.parametrize("cell", [lambda z, x: z, nnx.Linear(2, 2, rngs=nnx.Rngs(0))], ids=["function", "nnx"])
def test_only_linen_modules_are_wrapped(cell):
    with pytest.raises(TypeError, match=r"wraps a Flax Linen module.*nn\.DEQ\(cell\).*deq_jax\.fixed_point"):
        nn.linen.DEQ(cell)


def test_a_cell_of_another_form_is_refused():
    class Doubling(linen.Module):
        def __call__(self, z, x):
            return jnp.concatenate([z, x], axis=1)

    with pytest.raises(TypeError, match=r"z0 is float32\[2, 3\], f\(z0\) is float32\[2, 6\]"):
        nn.linen.DEQ(Doubling()).init(jax.random.key(0), jnp.ones((2, 3)))


class Sowing(linen.Module):
    """A cell that tells of a hidden value, in a collection."""

    collection: str = "intermediates"

    @linen.compact
    def __call__(self, z, x):
        h = linen.Dense(3, use_bias=False, kernel_init=SMALL, param_dtype=z.dtype)(z)
        self.sow(self.collection, "h", h)
        return jnp.tanh(h) + x


@pytest.fixture
def sown(x64):
    """A layer that sows, its parameters and an injection, with ``h`` and its gradient by hand."""

    def build(collection):
        x = jax.random.normal(jax.random.key(0), (4, 3))
        layer = nn.linen.DEQ(Sowing(collection), solver=functools.partial(TIGHT, tol=1e-12))
        params = {"params": layer.init(jax.random.key(1), x)["params"]}

        def by_hand(params):
            W = params["params"]["cell"]["Dense_0"]["kernel"]
            return deq_jax.unrolled(lambda z: jnp.tanh(z @ W) + x, jnp.zeros_like(x), steps=200) @ W

        return layer, params, x, by_hand

    return build


@pytest.mark.parametrize("collection", ["intermediates", "losses"])
def test_what_a_cell_sows_comes_out_once_at_the_equilibrium_with_its_gradient(sown, collection):
    layer, params, x, by_hand = sown(collection)

    def told(params):
        _, left = layer.apply(params, x, mutable=[collection])
        (h,) = left[collection]["cell"]["h"]
        return h

    np.testing.assert_allclose(jax.jit(told)(params), by_hand(params), rtol=1e-9)  # the solve stops at 1e-12
    ours, expected = (jax.grad(lambda params, h=h: jnp.sum(h(params) ** 2))(params) for h in (told, by_hand))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8), ours, expected)


def test_outputs_can_be_captured(sown):
    layer, params, x, by_hand = sown("intermediates")
    sol, left = layer.apply(params, x, capture_intermediates=True)
    (h,) = left["intermediates"]["cell"]["Dense_0"]["__call__"]
    np.testing.assert_allclose(h, by_hand(params), rtol=1e-9)
    np.testing.assert_allclose(left["intermediates"]["cell"]["__call__"][0], sol.value, rtol=1e-9)
    assert len(left["intermediates"]["__call__"]) == 1


@pytest.mark.parametrize("mutable", [False, ["batch_stats"], ["losses"]])
def test_a_cell_that_leaves_nothing_that_is_asked_for_is_not_evaluated_again(x, mutable):
    evaluated = []

    class Counting(linen.Module):
        @linen.compact
        def __call__(self, z, x):
            jax.debug.callback(lambda: evaluated.append(1))
            self.sow("intermediates", "h", z)
            return linen.BatchNorm(use_running_average=True)(0.1 * z) + x

    layer = nn.linen.DEQ(Counting(), solver=TIGHT)
    variables = layer.init(jax.random.key(1), x)

    def evaluations(**settings):
        jax.effects_barrier()
        evaluated.clear()
        jax.block_until_ready(layer.apply(variables, x, **settings))
        jax.effects_barrier()
        return len(evaluated)

    assert evaluations(mutable=mutable) == evaluations() == evaluations(mutable=["intermediates"]) - 1


def test_a_perturbation_s_gradient_is_the_adjoint_solution(x64):
    class Perturbed(linen.Module):
        @linen.compact
        def __call__(self, z, x):
            return self.perturb("h", 0.5 * z + x)

    layer = nn.linen.DEQ(Perturbed(), solver=functools.partial(TIGHT, tol=1e-12))
    x = jnp.ones((2, 3))
    variables = layer.init(jax.random.key(0), x)
    gradient = jax.grad(lambda variables: layer.apply(variables, x).value.sum())(variables)
    # It is added in every evaluation: z = 0.5 z + x + h.
    np.testing.assert_allclose(gradient["perturbations"]["cell"]["h"], 2, rtol=1e-9)


@pytest.mark.parametrize("setting", [{"solver": deq_jax.direct()}, {"adjoint": deq_jax.anderson}])
def test_a_layer_refuses_what_is_no_solver_or_adjoint_when_it_is_made(setting):
    with pytest.raises(TypeError, match=f"^{next(iter(setting))} must be"):
        nn.linen.DEQ(Cell(), **setting)
