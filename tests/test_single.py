"""One problem without a batch axis, and what f tells besides its state."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import deq_jax

TIGHT = functools.partial(deq_jax.anderson, tol=1e-13, max_iter=200)


def mixing(z, x):
    """Leaves of different shapes, a number among them, each of which depends on all."""
    total = z["number"] + z["vector"].sum() + z["matrix"].sum()
    return {
        "number": 0.1 * jnp.sin(total) + x[0],
        "vector": 0.2 * jnp.tanh(z["vector"][::-1] + 0.1 * total) + x[:3],
        "matrix": 0.3 * jnp.cos(z["matrix"].T) + 0.1 * z["number"] * x[1],
    }


Z0 = {"number": 0.0, "vector": jnp.zeros(3), "matrix": jnp.zeros((2, 2))}


@pytest.fixture
def x(x64):
    return jnp.array([0.3, -0.2, 0.5])


def flat(tree):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def start():
    return jax.tree.map(jnp.float64, Z0)


def by_newton(x):
    """The equilibrium as a differentiable function of x, by dense Newton steps."""
    z, unravel = jax.flatten_util.ravel_pytree(start())

    def residual(z):
        return z - flat(mixing(unravel(z), x))

    return jax.lax.fori_loop(0, 8, lambda _, z: z - jnp.linalg.solve(jax.jacfwd(residual)(z), residual(z)), z)


def solved(x, primitive=deq_jax.fixed_point, **settings):
    return primitive(mixing, start(), x, solver=TIGHT, batched=False, **settings)


def test_the_solution_is_like_the_start_and_a_dense_solve_s(x):
    sol = jax.jit(solved)(x)
    assert jax.tree.map(jnp.shape, sol.value) == jax.tree.map(jnp.shape, Z0)
    assert sol.residual.shape == sol.iterations.shape == sol.status.shape == ()
    assert sol.status == deq_jax.Status.CONVERGED
    np.testing.assert_allclose(flat(sol.value), by_newton(x), rtol=1e-11)  # both to rounding, times the condition


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"adjoint": deq_jax.direct()},
        {"adjoint": deq_jax.krylov(tol=1e-12)},
        {"adjoint": deq_jax.phantom(30)},
        {"primitive": deq_jax.fixed_point_jvp},
    ],
)
def test_gradients_are_a_dense_solve_s(x, settings):
    ours = jax.jit(jax.grad(lambda x: jnp.sum(flat(solved(x, **settings).value) ** 2)))(x)
    np.testing.assert_allclose(ours, jax.jit(jax.grad(lambda x: jnp.sum(by_newton(x) ** 2)))(x), rtol=1e-9)


def test_second_derivatives_are_a_dense_solve_s(x):
    def penalty(z_star):
        return jax.jit(jax.grad(lambda x: jnp.sum(jax.grad(lambda x: jnp.sum(z_star(x) ** 2))(x) ** 2)))

    np.testing.assert_allclose(penalty(lambda x: flat(solved(x).value))(x), penalty(by_newton)(x), rtol=1e-8)


@pytest.mark.long
def test_mapped_over_problems_it_is_the_batched_solve(x):
    w = 0.3 * jax.random.normal(jax.random.key(0), (4, 4))
    x = jax.random.normal(jax.random.key(1), (5, 4))

    def loss(x, batched):
        def one(x):
            return deq_jax.fixed_point(
                lambda z, x: jnp.tanh(z @ w) + x, jnp.zeros_like(x), x, solver=TIGHT, batched=batched
            )

        sol = one(x) if batched else jax.vmap(one)(x)
        return jnp.sum(sol.value**2), sol

    (ours, sol), (expected, batch) = (jax.grad(loss, has_aux=True)(x, batched) for batched in (False, True))
    np.testing.assert_allclose(ours, expected, rtol=1e-10)
    np.testing.assert_array_equal(sol.iterations, batch.iterations)
    np.testing.assert_allclose(sol.value, batch.value, rtol=1e-12)


@pytest.mark.parametrize("solver", [deq_jax.anderson, deq_jax.broyden, deq_jax.forward_iteration])
def test_a_solver_s_numbers_are_those_of_a_batch_of_one(solver):
    def f(z):
        return jnp.cos(z) * jnp.array([1.0, 0.5])

    one = solver(f, jnp.zeros(2), tol=1e-6, trace=True, batched=False)
    batch = solver(f, jnp.zeros((1, 2)), tol=1e-6, trace=True)
    assert one.trace.shape == (50,)
    jax.tree.map(np.testing.assert_array_equal, one._replace(trace=one.trace[:, None]), batch._replace(
        value=batch.value[0], residual=batch.residual[0], iterations=batch.iterations[0], status=batch.status[0]
    ))  # fmt: skip


def test_the_parts_of_one_problem_are_judged_together():
    # The first number is at rest from the start; as samples of a batch it would stop at once.
    def f(z):
        return jnp.array([0.0, 1.0]) + 0.9 * z

    assert deq_jax.forward_iteration(f, jnp.zeros(2), batched=False).iterations.shape == ()
    np.testing.assert_array_equal(deq_jax.forward_iteration(f, jnp.zeros(2)).iterations.shape, (2,))


def test_the_report_is_of_scalars(x):
    def loss(x, report):
        return jnp.sum(flat(solved(x, report=report).value))

    report = jax.grad(loss, argnums=1)(x, deq_jax.adjoint_report(None))
    assert report.iterations.shape == ()
    assert report.iterations > 1
    assert report.status == deq_jax.Status.CONVERGED
    with pytest.raises(ValueError, match=r"must be deq_jax\.adjoint_report\(None\)"):
        loss(x, deq_jax.adjoint_report(1))


def test_diagnostics_are_numbers(x64):
    A = jnp.array([[0.5, 0.2], [0.0, 0.3]])
    f, z, key = lambda z: A @ z + 1, jnp.ones(2), jax.random.key(0)
    np.testing.assert_allclose(deq_jax.spectral_radius(f, z, key, 200, batched=False), 0.5, rtol=1e-6)
    np.testing.assert_allclose(  # many draws of signs
        deq_jax.jacobian_penalty(f, z, key, 4000, batched=False), jnp.sum(A**2), rtol=2e-2
    )
    r = f(z) - z
    np.testing.assert_allclose(
        deq_jax.contraction_penalty(f, z, batched=False), jnp.sum((A @ r) ** 2) / jnp.sum(r**2), rtol=1e-9
    )
    np.testing.assert_allclose(deq_jax.unrolled(f, z, steps=2, batched=False), f(f(z)), rtol=1e-12)


def test_an_error_speaks_of_the_form_that_was_given():
    with pytest.raises(TypeError, match=r"z0 is float32\[4\], f\(z0\) is float32\[2\]"):
        deq_jax.anderson(lambda z: z[:2], jnp.zeros(4), batched=False)
    with pytest.raises(TypeError, match="floating-point"):
        deq_jax.fixed_point(lambda z: z, 1, batched=False)


def test_where_an_axis_is_missing_the_word_for_it_is_said():
    with pytest.raises(ValueError, match="batched=False"):
        deq_jax.fixed_point(lambda z: z, jnp.float32(1))
    with pytest.raises(ValueError, match="batched=False"):
        deq_jax.check_independence(lambda z: jnp.ones((3, 3)) @ z, jnp.zeros(3))


def test_a_solver_in_the_primitive_is_given_a_batch():
    with pytest.raises(TypeError, match="say batched=False to fixed_point, and not to the solver"):
        deq_jax.fixed_point(
            lambda z: 0.5 * z, jnp.zeros(3), solver=functools.partial(deq_jax.anderson, batched=False), batched=False
        )


@pytest.mark.parametrize("batched", [True, False])
def test_what_f_tells_besides_is_that_of_the_equilibrium_with_its_gradient(x64, batched):
    x = jnp.array([[0.3, 0.8]]) if batched else jnp.array([0.3, 0.8])

    def told(x, w):
        def f(z, x, w):
            return (0.5 * jnp.tanh(w * z) + x, {"hidden": w * z * x})

        sol, aux = deq_jax.fixed_point(f, jnp.zeros_like(x), x, w, solver=TIGHT, batched=batched, has_aux=True)
        return sol.value, aux["hidden"]

    def by_hand(x, w):
        z = deq_jax.unrolled(lambda z: 0.5 * jnp.tanh(w * z) + x, jnp.zeros_like(x), steps=80, batched=batched)
        return z, w * z * x

    for part in (0, 1):
        np.testing.assert_allclose(told(x, 0.7)[part], by_hand(x, 0.7)[part], rtol=1e-11)
    ours, expected = (jax.grad(lambda x, w, g=g: g(x, w)[1].sum(), (0, 1))(x, 0.7) for g in (told, by_hand))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), ours, expected)


def test_has_aux_wants_a_pair():
    with pytest.raises(TypeError, match="must return a pair"):
        deq_jax.fixed_point(lambda z: z, jnp.zeros((1, 1)), has_aux=True)
