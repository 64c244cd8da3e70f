"""The primitive inside JAX's other transformations, and what is built of its second derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax
from tests.problems import tanh_network

TIGHT = functools.partial(deq_jax.anderson, tol=1e-13, max_iter=300)


@pytest.fixture
def network(x64):
    return tanh_network(jax.random.key(0), 4, 5, dtype=jnp.float64)


def equilibrium(f, w, x):
    return deq_jax.fixed_point(f, jnp.zeros_like(x), x, w, solver=TIGHT).value


@pytest.mark.long
def test_a_scan_over_several_solves(network):
    f, w, x = network

    def scanned(w):
        return jnp.sum(jax.lax.scan(lambda x, _: (equilibrium(f, w, x), None), x, length=3)[0] ** 2)

    def written_out(w):
        return jnp.sum(equilibrium(f, w, equilibrium(f, w, equilibrium(f, w, x))) ** 2)

    for transform in (lambda g: g, jax.checkpoint):
        np.testing.assert_allclose(
            jax.jit(jax.grad(transform(scanned)))(w), jax.jit(jax.grad(written_out))(w), rtol=1e-9
        )


def test_a_hessian_vector_product_is_that_of_finite_differences(network):
    f, w, x = network
    gradient = jax.jit(jax.grad(lambda w: jnp.sum(jnp.sin(equilibrium(f, w, x)))))
    v = jax.random.normal(jax.random.key(1), w.shape)
    _, pull_back = jax.vjp(gradient, w)
    step = 1e-5
    numeric = (gradient(w + step * v) - gradient(w - step * v)) / (2 * step)
    # The Hessian is symmetric, so Jᵀv of the gradient is its product with v; central differences err by step².
    np.testing.assert_allclose(jax.jit(pull_back)(v)[0], numeric, rtol=1e-6, atol=1e-7)


def test_a_gradient_penalty_can_be_minimised(network):
    f, w, x = network

    @jax.jit
    @jax.value_and_grad
    def penalty(w):
        return jnp.sum(jax.grad(lambda x: jnp.sum(equilibrium(f, w, x) ** 2))(x) ** 2)

    before, direction = penalty(w)
    after, _ = penalty(w - 1e-3 * direction / jnp.linalg.norm(direction))
    np.testing.assert_allclose(before - after, 1e-3 * jnp.linalg.norm(direction), rtol=0.1)  # to first order


def users_own_solver(f, z0):
    """Plain iteration with arrays of its own, made inside."""
    z, _ = jax.lax.scan(lambda z, share: ((1 - share) * z + share * f(z), None), z0, jnp.ones(150, z0.dtype))
    batch = z0.shape[0]
    none, status = jnp.zeros(batch, jnp.float32), jnp.zeros(batch, jnp.int8)
    return deq_jax.Solution(z, none, jnp.full(batch, 150, jnp.int32), status)


def users_own_adjoint(transposed, y, fixed_point):
    """The Neumann series, with an array of its own."""
    weights = jnp.ones(150, y.dtype)
    g = jax.lax.fori_loop(0, 150, lambda k, g: weights[k] * (transposed(g) + y), y)
    return users_own_solver(lambda g: g, g)


def scanned(layer, x, w):
    return jax.lax.scan(lambda z, _: (layer(z, w), None), x, length=2)[0]


def counted(layer, x, w):
    return jax.lax.fori_loop(0, 2, lambda _, z: layer(z, w), x)


def mapped(layer, x, w):
    return jax.lax.map(lambda one: layer(layer(one, w), w), x[:, None])[:, 0]


SOLVERS = {
    "anderson": deq_jax.anderson,
    "broyden": deq_jax.broyden,
    "forward_iteration": deq_jax.forward_iteration,
}
TWICE = [
    ("scanned", "anderson", "anderson", "float32"),
    *(("scanned", name, name, "float64") for name in ("anderson", "broyden", "forward_iteration", "user's")),
    *(("scanned", "anderson", name, "float64") for name in ("direct", "krylov", "phantom", "jacobian_free")),
    ("counted", "anderson", "anderson", "float64"),
    ("mapped", "anderson", "anderson", "float64"),
]


@pytest.mark.long
@pytest.mark.parametrize(("loop", "solver", "adjoint", "dtype"), TWICE)
def test_second_derivatives_through_a_loop_are_those_of_the_loop_written_out(loop, solver, adjoint, dtype):
    double = dtype == "float64"
    tol = 1e-13 if double else 1e-6
    loop = {"scanned": scanned, "counted": counted, "mapped": mapped}[loop]
    solvers = {name: functools.partial(solve, tol=tol, max_iter=200) for name, solve in SOLVERS.items()}
    adjoints = {
        "direct": deq_jax.direct(),
        "krylov": deq_jax.krylov(tol=tol),
        "phantom": deq_jax.phantom(3),
        "jacobian_free": deq_jax.jacobian_free(),
        "user's": users_own_adjoint,
        **{name: deq_jax.implicit(solve) for name, solve in solvers.items()},
    }
    with jax.enable_x64(double):
        f, w, x = tanh_network(jax.random.key(0), 3, 4, radius=0.5, dtype=jnp.dtype(dtype))
        solve = solvers.get(solver, users_own_solver)

        def layer(x, w):
            return deq_jax.fixed_point(f, jnp.zeros_like(x), x, w, solver=solve, adjoint=adjoints[adjoint]).value

        def penalty(output):
            gradient = jax.grad(lambda x, w: jnp.sum(output(x, w) ** 2), argnums=(0, 1))
            return jax.jit(jax.grad(lambda x, w: sum(jnp.sum(g**2) for g in gradient(x, w)), argnums=(0, 1)))

        looped = penalty(functools.partial(loop, layer))(x, w)
        written = penalty(lambda x, w: layer(layer(x, w), w))(x, w)
    # What both solves leave of their residuals, over the distance to a singular I − J, and multiplied by two layers.
    for ours, plain in zip(looped, written, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-9 if double else 1e-3, atol=1e-9 if double else 1e-3)


def test_a_loop_keeps_what_does_not_change_in_it_once(network):
    f, w, x = network
    steps = 17

    def last(x, w):
        return jnp.sum(jax.lax.scan(lambda z, _: (equilibrium(f, w, z), None), x, length=steps)[0])

    program = str(jax.make_jaxpr(jax.grad(last, argnums=(0, 1)))(x, w))
    assert f"f64[{steps},{x.shape[0]},{x.shape[1]}]" in program  # each iteration's equilibrium, as it must
    assert f"f64[{steps},{w.shape[0]},{w.shape[1]}]" not in program
