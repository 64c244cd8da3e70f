import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax
from deq_jax import Status
from deq_jax.gradients.adjoint import DENSE_LIMIT
from tests.problems import network_loss, tanh_network
from tests.unchecked import unchecked

EXACT = {
    "same solver": None,
    "anderson": deq_jax.implicit(functools.partial(deq_jax.anderson, tol=1e-12, max_iter=300)),
    "forward_iteration": deq_jax.implicit(functools.partial(deq_jax.forward_iteration, tol=1e-12, max_iter=900)),
    "direct": deq_jax.direct(),
}


@pytest.fixture
def problem(x64):
    """A loss with a weight, an injection and a closure, and its gradients by a dense solve of (I − J)ᵀ g = y."""
    f, (w, x), target, loss = network_loss()
    bias = jnp.zeros(8, jnp.float64)
    z_star = loss(w, x, bias, None)[1]
    y = 2 * (z_star - target) / target.size
    one = jax.vmap(jax.jacobian(lambda z, x: jnp.tanh(z @ w) + x), in_axes=(0, 0))(z_star, x)
    g = jnp.linalg.solve(jnp.eye(8) - jnp.swapaxes(one, 1, 2), y[..., None])[..., 0]
    _, pull_back = jax.vjp(lambda w, x, bias: f(z_star, x, w) + bias, w, x, bias)
    return loss, (w, x, bias), pull_back(g)


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_adjoint_is_the_dense_solve(problem, name):
    loss, args, expected = problem
    gradients = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*args, EXACT[name])[0]
    for got, want in zip(gradients, expected, strict=True):
        # The project's promise: 1e-10 at a tolerance of 1e-12.
        assert jnp.linalg.norm(got - want) <= 1e-10 * jnp.linalg.norm(want)


def test_phantom_gradients_approach_the_exact_one(problem):
    loss, args, expected = problem

    def error(adjoint):
        got = jax.grad(loss, has_aux=True)(*args, adjoint)[0]
        return float(jnp.linalg.norm(got - expected[0]) / jnp.linalg.norm(expected[0]))

    errors = [error(adjoint) for adjoint in (deq_jax.jacobian_free(), *map(deq_jax.phantom, (1, 5, 25, 125)))]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-2  # what is approximate here is not the loss
    assert errors[-1] < 1e-5  # the Neumann series at spectral radius 0.9: 0.9^125 = 2e-6
    assert error(deq_jax.phantom(250, damping=0.5)) < 1e-5


def test_phantom_is_the_damped_neumann_series():
    y = jnp.ones((1, 1))
    sol = deq_jax.phantom(2, damping=0.5)(lambda g: 0.5 * g, y, deq_jax.fixed_point)
    # H = 0.5 + 0.5·0.5 = 0.75, and 0.5·(1 + 0.75 + 0.75²) = 1.15625
    np.testing.assert_allclose(sol.value, [[1.15625]])
    assert sol.iterations[0] == 2


def test_phantom_is_backpropagation_through_damped_steps_at_the_equilibrium(problem):
    loss, (w, x, bias), _ = problem
    z_star = loss(w, x, bias, None)[1]
    damping, steps = 0.8, 4

    def cell(z, w):
        return jnp.tanh(z @ w) + x + bias

    def by_steps(w):
        def damped(z):
            return (1 - damping) * z + damping * cell(z, w)

        return jnp.sum(jnp.sin(deq_jax.unrolled(damped, z_star, steps=steps + 1)))

    def by_phantom(w):
        solver = functools.partial(deq_jax.anderson, tol=1e-12, max_iter=300)
        adjoint = deq_jax.phantom(steps, damping)
        return jnp.sum(jnp.sin(deq_jax.fixed_point(cell, z_star, w, solver=solver, adjoint=adjoint).value))

    np.testing.assert_allclose(jax.grad(by_phantom)(w), jax.grad(by_steps)(w), rtol=1e-9, atol=1e-12)


def test_direct_gives_a_singular_sample_no_gradient_and_the_others_theirs():
    y = jnp.array([[0.5], [1.0], [0.2]])  # the Jacobian of the second is the identity

    def loss(w, report):
        def f(z, w):
            return jnp.where(y == 1.0, z, w * y * z + 1.0)

        return deq_jax.fixed_point(f, jnp.zeros((3, 1)), w, adjoint=deq_jax.direct(), report=report).value.sum()

    gradient, report = jax.grad(loss, argnums=(0, 1))(1.0, deq_jax.adjoint_report(3))
    # Σ y / (1 − y)² over the two others.
    np.testing.assert_allclose(gradient, 0.5 / 0.25 + 0.2 / 0.64, rtol=0.05)
    np.testing.assert_array_equal(report.status, [Status.CONVERGED, Status.DIVERGED, Status.CONVERGED])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_settings_may_be_numpy_numbers(x64, dtype):
    x, half = jnp.ones((2, 3), dtype), np.float64(0.5)
    adjoint = deq_jax.phantom(3, half)
    solver = functools.partial(deq_jax.anderson, beta=half, lam=half, tol=half)
    gradient = jax.grad(
        lambda x: deq_jax.fixed_point(
            lambda z, x: z * 0.5 + x, jnp.zeros_like(x), x, solver=solver, adjoint=adjoint
        ).value.sum()
    )(x)
    assert gradient.dtype == dtype


def test_jacobian_free_spends_nothing():
    y = jnp.ones((2, 3))
    sol = deq_jax.jacobian_free()(lambda g: pytest.fail("no product is needed"), y, deq_jax.fixed_point)
    np.testing.assert_array_equal(sol.value, y)
    np.testing.assert_array_equal(sol.iterations, 0)
    assert np.isinf(sol.residual).all()


def test_direct_solves_over_all_leaves_at_once(x64):
    # One linear system over two leaves of different shapes.
    a = 0.1 * jax.random.normal(jax.random.key(0), (5, 5), jnp.float64)
    y = {"u": jnp.ones((2, 2, 1), jnp.float64), "v": jnp.arange(6.0).reshape(2, 3)}

    def transposed(g):
        out = jnp.concatenate([g["u"].reshape(2, 2), g["v"]], axis=1) @ a
        return {"u": out[:, :2].reshape(2, 2, 1), "v": out[:, 2:]}

    sol = deq_jax.direct()(transposed, y, deq_jax.fixed_point)
    flat = jnp.concatenate([y["u"].reshape(2, 2), y["v"]], axis=1) @ jnp.linalg.inv(jnp.eye(5) - a)
    np.testing.assert_allclose(sol.value["v"], flat[:, 2:], rtol=1e-12)
    np.testing.assert_allclose(sol.value["u"].reshape(2, 2), flat[:, :2], rtol=1e-12)
    assert (sol.residual < 1e-12).all()


def test_direct_refuses_a_state_too_large():
    x = jnp.ones((2, DENSE_LIMIT + 1))

    def loss(x):
        return deq_jax.fixed_point(lambda z, x: 0.5 * z + x, jnp.zeros_like(x), x, adjoint=deq_jax.direct()).value.sum()

    with pytest.raises(ValueError, match=f"{DENSE_LIMIT + 1} × {DENSE_LIMIT + 1}.*Use implicit"):
        jax.grad(loss)(x)


@pytest.mark.parametrize("steps", [0, -1])
def test_phantom_needs_steps(steps):
    with pytest.raises(ValueError, match="at least 1"):
        deq_jax.phantom(steps)
    with pytest.raises(ValueError, match="damping must lie"):
        deq_jax.phantom(1, damping=1.5)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20])
def test_cotangents_of_any_size_give_the_same_gradient(size):
    f, w, x = tanh_network(jax.random.key(2), 3, 6)

    def gradient(size):
        def loss(x):
            return jnp.sum(size * jnp.sin(deq_jax.fixed_point(f, jnp.zeros_like(x), x, w).value))

        return jax.grad(loss)(x)

    np.testing.assert_allclose(gradient(size) / size, gradient(1.0), rtol=1e-5)  # float32


@pytest.mark.parametrize("adjoint", [deq_jax.direct(), deq_jax.krylov(tol=1e-3)], ids=["direct", "krylov"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_dense_and_krylov_adjoints_take_half_precision(adjoint, dtype):
    f, w, x = tanh_network(jax.random.key(2), 3, 6)

    def gradient(dtype, adjoint):
        def loss(w):
            z = deq_jax.fixed_point(f, jnp.zeros_like(x, dtype), x.astype(dtype), w, adjoint=adjoint).value
            return jnp.sum(jnp.sin(z.astype(jnp.float32)))

        return jax.grad(loss)(w.astype(dtype)).astype(jnp.float32)

    expected = gradient(jnp.float32, deq_jax.direct())
    # bfloat16 rounds every product to 8 bits.
    assert jnp.linalg.norm(gradient(dtype, adjoint) - expected) <= 0.05 * jnp.linalg.norm(expected)


@pytest.mark.parametrize("transform", [jax.grad, lambda *a, **k: jax.jit(jax.grad(*a, **k))])
def test_the_report_says_what_the_adjoint_solve_did(transform):
    f, w, x = tanh_network(jax.random.key(1), 4, 6)
    solver = functools.partial(deq_jax.anderson, tol=1e-4)

    def loss(w, report):
        sol = deq_jax.fixed_point(f, jnp.zeros_like(x), x, w, solver=solver, report=report)
        return jnp.sum(jnp.sin(sol.value)) + 0 * jnp.sum(sol.residual)

    report = transform(loss, argnums=1)(w, deq_jax.adjoint_report(4))
    z_star = solver(lambda z: f(z, x, w), jnp.zeros_like(x)).value
    _, transposed = jax.vjp(lambda z: f(z, x, w), z_star)
    by_hand = solver(lambda g: transposed(g)[0] + jnp.cos(z_star), jnp.cos(z_star))
    np.testing.assert_array_equal(report.iterations, by_hand.iterations)
    np.testing.assert_allclose(report.residual, by_hand.residual, rtol=1e-2)  # compiled otherwise, rounded otherwise
    np.testing.assert_array_equal(report.status, by_hand.status)


def test_an_adjoint_that_stops_early_says_so():
    f, w, x = tanh_network(jax.random.key(1), 4, 6)

    def loss(x, report, adjoint):
        return deq_jax.fixed_point(f, jnp.zeros_like(x), x, w, adjoint=adjoint, report=report).value.sum()

    def status(adjoint):
        return jax.grad(loss, argnums=1)(x, deq_jax.adjoint_report(4), adjoint).status

    short = deq_jax.implicit(functools.partial(deq_jax.forward_iteration, tol=1e-6, max_iter=2))
    np.testing.assert_array_equal(status(short), Status.MAX_ITER)
    np.testing.assert_array_equal(status(None), Status.CONVERGED)


@pytest.mark.parametrize(
    "solver", [1e-3, "anderson", deq_jax.direct(), functools.partial(deq_jax.anderson, tolerance=1)]
)
def test_the_solver_of_an_adjoint_must_be_one(solver):
    with pytest.raises(TypeError, match=r"^solver must be a callable \(f, z0\) -> Solution, got .*functools\.partial"):
        unchecked(deq_jax.implicit)(solver)
