import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

import deq_jax
from deq_jax import nn
from tests.problems import tanh_network
from tests.unchecked import unchecked

TIGHT = functools.partial(deq_jax.anderson, tol=1e-13, max_iter=300)


@pytest.fixture
def loss(x64):
    f, w, x = tanh_network(jax.random.key(0), 2, 4, dtype=jnp.float64)

    def loss(primitive, x, w, scale):
        order = jnp.array([1, 0, 3, 2])
        sol = primitive(lambda z, x, w: scale * f(z, x, w)[:, order], jnp.zeros_like(x), x, w, solver=TIGHT)
        return jnp.sum(jnp.sin(sol.value))

    return loss, (x, w, jnp.float64(0.7))


@pytest.mark.long
def test_both_modes_agree_with_finite_differences(loss):
    loss, args = loss
    check_grads(jax.jit(functools.partial(loss, deq_jax.fixed_point_jvp)), args, order=2, modes=["fwd", "rev"])


def test_it_is_the_same_function_as_the_primitive(loss):
    loss, args = loss
    ours, other = (
        jax.value_and_grad(functools.partial(loss, primitive), argnums=(0, 1, 2))(*args)
        for primitive in (deq_jax.fixed_point_jvp, deq_jax.fixed_point)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), ours, other)


@pytest.mark.long
def test_hessians_by_forward_over_reverse(loss):
    loss, (x, w, scale) = loss
    by_reverse = jax.jacrev(jax.grad(lambda x: loss(deq_jax.fixed_point, x, w, scale)))(x)
    by_both = jax.jit(jax.hessian(lambda x: loss(deq_jax.fixed_point_jvp, x, w, scale)))(x)
    np.testing.assert_allclose(by_both, by_reverse, rtol=1e-9, atol=1e-11)


def test_a_diverged_sample_has_no_tangent(x64):
    x = jnp.array([[0.5], [9.0]])

    def f(z, x):
        return jnp.where(x > 5, x + z**2, 0.5 * jnp.tanh(z) + x)

    def z_star(x):
        return deq_jax.fixed_point_jvp(f, jnp.zeros_like(x), x, solver=functools.partial(TIGHT, m=1)).value

    tangent = jax.jvp(z_star, (x,), (jnp.ones_like(x),))[1]
    assert tangent[1, 0] == 0
    assert tangent[0, 0] > 1


def test_the_primitive_itself_has_no_forward_mode(loss):
    loss, (x, w, scale) = loss
    with pytest.raises(TypeError, match=r"no forward mode.*deq_jax\.fixed_point_jvp"):
        jax.jvp(lambda x: loss(deq_jax.fixed_point, x, w, scale), (x,), (x,))


def test_a_cell_with_a_custom_vjp_has_none_either():
    cell = nn.ResNetCell(4, 4, num_groups=2, rngs=nnx.Rngs(0))
    x = jnp.ones((1, 4, 4, 4))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: deq_jax.fixed_point_jvp(cell, x, x).value, (x,), (x,))


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_tangents_of_any_size_give_the_same_derivative(size):
    # A rotation that also stretches: only a solve that sees its own scale gets anywhere.
    turn = 0.9 * jnp.array([[0.0, 1.0], [-1.0, 0.0]])

    def loss(x, size):
        solver = functools.partial(deq_jax.anderson, tol=1e-6, max_iter=100)
        return (
            size * deq_jax.fixed_point_jvp(lambda z, x: z @ turn + x, jnp.zeros_like(x), x, solver=solver).value[0, 0]
        )

    x = jnp.ones((1, 2))
    expected = jnp.linalg.solve(jnp.eye(2) - turn, jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(jax.grad(loss)(x, size)[0] / size, expected, rtol=1e-4)


@pytest.mark.parametrize("solver", [1e-3, deq_jax.direct()])
@pytest.mark.parametrize("name", ["solver", "tangent_solver"])
def test_what_is_no_solver_is_refused(name, solver):
    with pytest.raises(TypeError, match=f"^{name} must be a callable"):
        unchecked(deq_jax.fixed_point_jvp)(lambda z: 0.5 * z, jnp.ones((1, 2)), **{name: solver})


@pytest.mark.long
def test_what_else_f_has_to_tell_has_derivatives_in_both_modes(x64):
    f, w, x = tanh_network(jax.random.key(0), 2, 4, dtype=jnp.float64)

    def tell(w, batched=True):
        def told(z, w):
            hidden = z @ w
            return f(z, x if batched else x[0], w), {"hidden": hidden}

        z0 = jnp.zeros_like(x if batched else x[0])
        sol, aux = deq_jax.fixed_point_jvp(told, z0, w, solver=TIGHT, has_aux=True, batched=batched)
        return aux["hidden"], sol.value @ w

    for batched in (True, False):
        check_grads(lambda w: tell(w, batched)[0], (w,), order=1, modes=["fwd", "rev"])  # noqa: B023
        np.testing.assert_array_equal(*tell(w, batched))
