"""Where there is no derivative, what is asked for is refused in words that help, whatever it is asked through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import deq_jax
from deq_jax.gradients.derivatives import in_reverse_mode_only, without_derivative

X = jnp.linspace(0.1, 1.0, 6).reshape(2, 3)
W = 0.1 * jnp.ones((3, 3))
NO_FORWARD_MODE = r"no forward mode.*deq_jax\.fixed_point_jvp.*jax\.jacrev"


def by_argument(x):
    sol = deq_jax.fixed_point(lambda z, x: jnp.tanh(z @ W) + x, jnp.zeros_like(x), x, solver=deq_jax.forward_iteration)
    return jnp.sum(sol.value**2)


def by_closure(x):
    sol = deq_jax.fixed_point(lambda z: jnp.tanh(z @ W) + x, jnp.zeros_like(x), solver=deq_jax.forward_iteration)
    return jnp.sum(sol.value**2)


def twice(x):
    return lax.scan(lambda x, _: (x + by_argument(x), None), x, length=2)[0].sum()


WAYS = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "vmap": lambda f: lambda x: jax.vmap(f)(x[None])[0],
    "shard_map": lambda f: jax.shard_map(
        f, mesh=jax.make_mesh((1,), ("one",)), in_specs=jax.P(), out_specs=jax.P(), check_vma=True
    ),
}
CASES = [*((by_argument, way) for way in WAYS), (by_closure, "plain"), (twice, "jit")]


@pytest.mark.parametrize(("loss", "way"), CASES)
def test_forward_mode_through_the_primitive_names_the_one_that_has_it(loss, way):
    f = WAYS[way](loss)
    for derivative in (
        lambda: jax.jvp(f, (X,), (X,)),
        lambda: jax.jit(lambda x: jax.jvp(f, (x,), (x,)))(X),
        lambda: jax.linearize(f, X)[1](X),
        lambda: jax.jacfwd(f)(X),
        lambda: jax.hessian(f)(X),
    ):
        with pytest.raises(TypeError, match=NO_FORWARD_MODE):
            derivative()


@pytest.mark.parametrize(("loss", "way"), CASES)
def test_reverse_mode_is_as_it_was(loss, way):
    f = WAYS[way](loss)

    def both(f):
        return jax.jit(lambda x: (jax.jacrev(f)(x), jax.grad(lambda x: jnp.sum(jax.grad(f)(x) ** 2))(x)))(X)

    for ours, plain in zip(both(f), both(loss), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4)  # float32, compiled otherwise


def test_a_tangent_that_nobody_uses_is_no_error():
    value = jax.jit(lambda x: jax.jvp(by_argument, (x,), (x,))[0])(X)
    np.testing.assert_allclose(value, by_argument(X), rtol=1e-6)
    start = jax.jvp(lambda z0: deq_jax.fixed_point(lambda z: 0.5 * z, z0).value, (X,), (X,))[1]
    np.testing.assert_array_equal(start, 0)


def test_numbers_are_arguments_as_ever():
    gradient = jax.grad(
        lambda x: deq_jax.fixed_point(lambda z, x, n: 0.5 * z + n * x, jnp.zeros((1, 1)), x, 2).value[0, 0]
    )
    np.testing.assert_allclose(gradient(1.0), 4, rtol=2e-2)  # solves to 1e-2


def test_a_report_has_no_forward_mode_either():
    def value(report):
        return deq_jax.fixed_point(lambda z: 0.5 * z, X, report=report).value

    report = deq_jax.adjoint_report(2)
    with pytest.raises(TypeError, match=NO_FORWARD_MODE):
        jax.jvp(value, (report,), (report,))


@pytest.mark.parametrize("guard", [in_reverse_mode_only, without_derivative])
def test_a_program_that_asks_for_no_derivative_has_no_operation_more(guard):
    def program(guard):
        def f(tree):
            return jax.tree.map(lambda leaf: leaf + leaf, guard(tree))

        compiled = jax.jit(f).lower({"x": X, "n": jnp.arange(3), "key": jnp.ones(2, jnp.bfloat16)}).compile()
        return compiled.cost_analysis(), [
            line.split("metadata")[0] for line in compiled.as_text().splitlines() if " = " in line
        ]

    assert program(guard) == program(lambda tree: tree)
