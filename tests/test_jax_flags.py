"""What others' tests run under: JAX's own flags that refuse carelessness."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax import nn

FLAGS = {
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "leaks": jax.checking_leaks,
    "NaN": lambda: jax.debug_nans(True),
}
SOLVERS = (deq_jax.anderson, deq_jax.broyden, deq_jax.forward_iteration)
ADJOINTS = {
    "implicit": None,
    "direct": deq_jax.direct(),
    "krylov": deq_jax.krylov(tol=1e-4),
    "phantom": deq_jax.phantom(3, damping=0.5),
    "jacobian-free": deq_jax.jacobian_free(),
}


@pytest.fixture(params=FLAGS.values(), ids=FLAGS.keys())
def flag(request):
    """Each flag in turn, in both precisions."""
    with contextlib.ExitStack() as flags:
        flags.enter_context(jax.enable_x64(True))
        flags.enter_context(request.param())
        yield


def cell(z, x, weight):
    return jnp.tanh(z @ weight + x)


def problem(dtype=np.float32):
    return jnp.zeros((2, 3), dtype), jnp.ones((2, 3), dtype), jnp.full((3, 3), 0.1, dtype)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_in_every_dtype(solver, dtype):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        check_solver(solver, dtype)


@pytest.mark.usefixtures("flag")
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver(solver):
    check_solver(solver, "float32")


def check_solver(solver, dtype):
    z0, x, weight = problem(dtype)
    solution = jax.jit(lambda x: solver(lambda z: cell(z, x, weight), z0, tol=1e-2, atol=1e-6, trace=True))(x)
    assert solution.value.dtype == dtype
    assert jnp.all(solution.status == deq_jax.Status.CONVERGED)


@pytest.mark.usefixtures("flag")
@pytest.mark.parametrize("adjoint", ADJOINTS.values(), ids=ADJOINTS.keys())
def test_a_gradient_and_its_report(adjoint, request):
    if "leaks-krylov" in request.node.name:
        pytest.skip("lineax remembers what it traced, tracers and all")
    z0, x, weight = problem()

    def loss(weight, report):
        # x is closed over: what f depends on is found by tracing it.
        solve = functools.partial(deq_jax.fixed_point, adjoint=adjoint, report=report)
        return jnp.sum(solve(lambda z, w: cell(z, x, w), z0, weight).value)

    gradient, report = jax.jit(jax.grad(loss, argnums=(0, 1)))(weight, deq_jax.adjoint_report(2))
    assert jnp.all(jnp.isfinite(gradient))
    assert jnp.all(report.residual >= 0)


@pytest.mark.long
@pytest.mark.usefixtures("flag")
def test_second_derivatives_and_forward_mode():
    z0, x, weight = problem()

    def loss(solve, weight):
        return jnp.sum(solve(cell, z0, x, weight).value ** 2)

    def penalty(weight):
        return jnp.sum(jax.grad(functools.partial(loss, deq_jax.fixed_point))(weight) ** 2)

    assert jnp.all(jnp.isfinite(jax.jit(jax.grad(penalty))(weight)))
    forward = jax.jit(jax.jacfwd(functools.partial(loss, deq_jax.fixed_point_jvp)))(weight)
    np.testing.assert_allclose(
        forward, jax.jit(jax.grad(functools.partial(loss, deq_jax.fixed_point)))(weight), rtol=0.1
    )


@pytest.mark.usefixtures("flag")
def test_the_diagnostics():
    z0, x, weight = problem()

    @jax.jit
    def all_of_them(key, z):
        f = functools.partial(cell, x=x, weight=weight)
        return (
            deq_jax.spectral_radius(f, z, key),
            deq_jax.jacobian_penalty(f, z, key),
            deq_jax.contraction_penalty(f, z),
        )

    assert all(jnp.all(jnp.isfinite(number)) for number in all_of_them(jax.random.key(0), x))
    deq_jax.check_independence(functools.partial(cell, x=x, weight=weight), z0)


@pytest.mark.long
@pytest.mark.usefixtures("flag")
def test_a_classifier():
    cell = nn.ResNetCell(4, 4, num_groups=2, max_gain=0.3, rngs=nnx.Rngs(0))
    model = nnx.List([nn.Conv(3, 4, rngs=nnx.Rngs(1)), nn.BatchNorm(4), nn.DEQ(cell)])
    graph, state = nnx.split(model)
    images = jnp.ones((2, 4, 4, 3), jnp.float32)

    @jax.jit
    def gradient(state, x):
        def loss(state):
            stem, norm, layer = nnx.merge(graph, state, copy=True)
            return jnp.sum(layer(norm(stem(x))).value)

        return jax.grad(loss)(state)

    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(gradient(state, images)))


@pytest.mark.usefixtures("flag")
def test_the_feed_forward_cell():
    x = jnp.ones((2, 3), jnp.float32)
    assert jnp.all(nn.DEQ(nn.FeedForwardCell(3, 4, rngs=nnx.Rngs(0)))(x).status == deq_jax.Status.CONVERGED)
