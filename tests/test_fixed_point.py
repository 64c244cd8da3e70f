import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import deq_jax
from deq_jax import Status, fixed_point
from tests.problems import tanh_network
from tests.unchecked import unchecked

TIGHT = functools.partial(deq_jax.anderson, tol=1e-13, max_iter=300)


@pytest.fixture
def network(x64):
    return tanh_network(jax.random.key(0), 2, 4, dtype=jnp.float64)


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_of_injection_parameters_and_closure(network, order):
    f, w, x = network

    def loss(x, w, scale, pair):
        sol = fixed_point(lambda z, x, w: scale * f(z, x, w) + pair["shift"], jnp.zeros_like(x), x, w, solver=TIGHT)
        return jnp.sum(jnp.sin(sol.value))

    pair = {"shift": jnp.full(4, 0.3)}
    check_grads(jax.jit(loss), (x, w, jnp.float64(0.7), pair), order=order, modes=["rev"])


def test_gradients_under_jit_of_grad_and_grad_of_jit(network):
    f, w, x = network

    def loss(w):
        return jnp.sum(fixed_point(f, jnp.zeros_like(x), x, w, solver=TIGHT).value ** 2)

    expected = jax.grad(loss)(w)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(w), expected, rtol=1e-11)
    np.testing.assert_allclose(jax.grad(jax.jit(loss))(w), expected, rtol=1e-11)
    np.testing.assert_allclose(jax.grad(jax.checkpoint(loss))(w), expected, rtol=1e-11)


def test_gradients_under_vmap(network):
    f, w, x = network

    def loss(w, x):
        return jnp.sum(fixed_point(f, jnp.zeros_like(x), x, w, solver=TIGHT).value ** 2)

    both = jax.vmap(jax.grad(loss), in_axes=(None, 0))(w, jnp.stack([x, 2 * x]))
    np.testing.assert_allclose(both[1], jax.grad(loss)(w, 2 * x), rtol=1e-10)


def test_integers_and_keys_may_be_arguments_or_closed_over(network):
    f, w, x = network

    def loss(w, order, mask_key):
        def g(z, x, order):
            mask = jax.random.bernoulli(mask_key, 0.8, z.shape)
            return f(z, x, w)[:, order] * mask

        return jnp.sum(fixed_point(g, jnp.zeros_like(x), x, order, solver=TIGHT).value)

    args = (w, jnp.array([2, 0, 3, 1]), jax.random.key(1))
    gradient = jax.grad(jax.jit(loss))(*args)
    step = 1e-6 * w
    numeric = (loss(w + step, *args[1:]) - loss(w - step, *args[1:])) / 2e-6
    np.testing.assert_allclose(jnp.sum(gradient * w), numeric, rtol=1e-6)  # central differences

    def closed(w):
        return jax.jit(loss, static_argnums=())(w, jnp.array([2, 0, 3, 1]), jax.random.key(1))

    np.testing.assert_allclose(jax.grad(jax.jit(closed))(w), gradient, rtol=1e-11)


def test_states_and_arguments_are_pytrees(x64):
    def f(z, x):
        return {"a": 0.5 * jnp.tanh(z["b"]) + x[0], "b": 0.3 * jnp.sin(z["a"]) + x[1]["scale"]}

    def loss(x):
        sol = fixed_point(f, {"a": jnp.zeros((2, 3)), "b": jnp.zeros((2, 3))}, x, solver=TIGHT)
        return jnp.sum(sol.value["a"] * sol.value["b"])

    check_grads(jax.jit(loss), ((jnp.ones((2, 3)), {"scale": jnp.full((2, 3), 0.2)}),), order=2, modes=["rev"])


def test_the_start_has_no_gradient(network):
    f, w, x = network
    gradient = jax.grad(lambda z0: jnp.sum(fixed_point(f, z0, x, w).value))(jnp.ones_like(x))
    np.testing.assert_array_equal(gradient, 0)


def test_a_diverged_sample_gives_no_gradient_and_harms_no_other(x64):
    # 9 + z² has no fixed point; the others are scaled tanh cells.
    x = jnp.array([[0.5], [9.0], [0.2]])

    def f(z, x):
        return jnp.where(x > 5, x + z**2, 0.5 * jnp.tanh(z) + x)

    sol = fixed_point(f, jnp.zeros_like(x), x, solver=functools.partial(TIGHT, m=1))
    assert [int(s) for s in sol.status] == [Status.CONVERGED, Status.DIVERGED, Status.CONVERGED]

    def loss(x):
        return jnp.sum(fixed_point(f, jnp.zeros_like(x), x, solver=functools.partial(TIGHT, m=1)).value)

    gradient = jax.grad(loss)(x)
    assert gradient[1, 0] == 0
    clean = jax.grad(loss)(x[np.array([0, 2])])
    np.testing.assert_array_equal(gradient[np.array([0, 2])], clean)


def test_memory_does_not_grow_with_the_evaluations_allowed():
    f, w, x = tanh_network(jax.random.key(0), 8, 64)

    def temporary(max_iter):
        def loss(w):
            solver = functools.partial(deq_jax.anderson, tol=1e-6, max_iter=max_iter)
            return jnp.sum(fixed_point(f, jnp.zeros_like(x), x, w, solver=solver).value)

        return jax.jit(jax.grad(loss)).lower(w).compile().memory_analysis().temp_size_in_bytes

    assert temporary(10) == temporary(200)


def test_unrolled_backpropagation_approaches_the_implicit_gradient(network):
    f, w, x = network

    def explicit(w):
        return jnp.sum(deq_jax.unrolled(f, jnp.zeros_like(x), x, w, steps=400) ** 2)

    def implicit(w):
        return jnp.sum(fixed_point(f, jnp.zeros_like(x), x, w, solver=TIGHT).value ** 2)

    np.testing.assert_allclose(jax.grad(explicit)(w), jax.grad(implicit)(w), rtol=1e-9)  # 0.9^400 = 5e-19


def test_unrolled_applies_f_exactly_so_often():
    assert deq_jax.unrolled(lambda z: z + 1, jnp.zeros((1, 1)), steps=7)[0, 0] == 7
    with pytest.raises(ValueError, match="at least 1"):
        deq_jax.unrolled(lambda z: z, jnp.zeros((1, 1)), steps=0)
    with pytest.raises(TypeError, match="must return what it is given"):
        deq_jax.unrolled(lambda z: z[:, :1], jnp.zeros((1, 2)), steps=2)


@pytest.mark.parametrize(
    ("f", "z0", "error", "message"),
    [
        (lambda z: z[:, :1], jnp.zeros((2, 3)), TypeError, r"z0 is float32\[2, 3\], f\(z0\) is float32\[2, 1\]"),
        (lambda z: (z,), jnp.zeros((2, 3)), TypeError, "structure"),
        (lambda z: z.astype(jnp.bfloat16), jnp.zeros((2, 3)), TypeError, "bfloat16"),
        (lambda z: z, {"a": jnp.zeros((2, 3)), "b": jnp.zeros((3, 3))}, ValueError, "leading axis"),
        (lambda z: z, jnp.zeros((2, 3), int), TypeError, "floating-point"),
    ],
)
def test_another_form_is_refused(f, z0, error, message):
    with pytest.raises(error, match=message):
        fixed_point(f, z0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"solver": "anderson"}, TypeError, "solver must be a callable"),
        ({"adjoint": "direct"}, TypeError, "adjoint must be None or what"),
        ({"adjoint": deq_jax.anderson}, TypeError, "adjoint must be None or what"),
        ({"adjoint": deq_jax.direct}, TypeError, "adjoint must be None or what"),
        ({"report": deq_jax.adjoint_report(5)}, ValueError, r"must be deq_jax\.adjoint_report\(2\)"),
    ],
)
def test_misuse_is_named(settings, error, message):
    with pytest.raises(error, match=message):
        unchecked(fixed_point)(lambda z: 0.5 * z, jnp.zeros((2, 1)), **settings)


def test_arguments_that_are_no_arrays_are_named():
    with pytest.raises(TypeError, match=r"args\[1\]\['kind'\] is 'tanh'.*Close over"):
        fixed_point(lambda z, x, options: 0.5 * z + x, jnp.zeros((2, 1)), jnp.ones((2, 1)), {"kind": "tanh"})
    with pytest.raises(
        TypeError, match=r"args\[1\] is .*tanh.*Close over a function.*A solver goes in by name, solver="
    ):
        fixed_point(lambda z, x, g: 0.5 * g(z) + x, jnp.zeros((2, 1)), jnp.ones((2, 1)), jnp.tanh)


def test_a_solver_must_return_a_solution():
    with pytest.raises(TypeError, match=r"must return a deq_jax\.Solution, got .*Array"):
        fixed_point(lambda z: 0.5 * z, jnp.zeros((1, 1)), solver=lambda f, z0: f(z0))


def test_importing_the_core_imports_no_flax():
    import subprocess
    import sys

    code = "import sys, deq_jax; sys.exit(any(name.split('.')[0] == 'flax' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_broken_input_that_is_taken_out_before_the_solve_spoils_nothing():
    f, w, x = tanh_network(jax.random.key(0), 4, 5)

    def loss(w, x):
        usable = jnp.isfinite(x).all(axis=1, keepdims=True)
        x = jnp.where(usable, x, 0)
        return jnp.sum(jnp.where(usable, fixed_point(f, jnp.zeros_like(x), x, w).value, 0) ** 2)

    spoilt, clean = jax.grad(loss)(w, x.at[1].set(jnp.nan)), jax.grad(loss)(w, x[np.array([0, 2, 3])])
    np.testing.assert_allclose(spoilt, clean, rtol=1e-5)  # float32, another order of sums
