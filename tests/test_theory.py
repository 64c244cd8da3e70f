"""The chapter's statements about equilibria, each as a test."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax import nn
from tests.problems import tanh_network

TIGHT = functools.partial(deq_jax.forward_iteration, tol=1e-13, max_iter=2000)


def layers(depth, width):
    """Weights and biases of ``depth`` different layers."""
    keys = jax.random.split(jax.random.key(0), depth)
    return [(jax.random.normal(key, (width, width)), jax.random.normal(key, (width,))) for key in keys]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_network_of_k_layers_is_one_equilibrium_found_in_k_evaluations_and_one_to_see_it(x64, depth):
    weights, x = layers(depth, 4), jax.random.normal(jax.random.key(1), (3, 4))

    def network(x):
        for w, b in weights:
            x = jnp.tanh(x @ w + b)
        return x

    def f(z, x):
        """Each layer of the network at once, on the layer before it."""
        return [jnp.tanh(before @ w + b) for before, (w, b) in zip([x, *z[:-1]], weights, strict=True)]

    z0 = [jnp.zeros_like(x)] * depth
    sol = deq_jax.fixed_point(f, z0, x, solver=functools.partial(deq_jax.forward_iteration, tol=1e-15))
    np.testing.assert_allclose(sol.value[-1], network(x), rtol=1e-14)
    np.testing.assert_array_equal(sol.residual, 0)
    np.testing.assert_array_equal(sol.iterations, depth + 1)
    ours = jax.grad(lambda x: jnp.sum(deq_jax.fixed_point(f, z0, x, solver=TIGHT).value[-1]))(x)
    np.testing.assert_allclose(ours, jax.grad(lambda x: jnp.sum(network(x)))(x), rtol=1e-12)


def test_two_stacked_equilibria_are_one_joint_equilibrium(x64):
    f1, w1, x = tanh_network(jax.random.key(0), 3, 5, dtype=jnp.float64)
    f2, w2, _ = tanh_network(jax.random.key(1), 3, 5, dtype=jnp.float64)

    def stacked(x):
        first = deq_jax.fixed_point(f1, jnp.zeros_like(x), x, w1, solver=TIGHT).value
        return deq_jax.fixed_point(f2, jnp.zeros_like(x), first, w2, solver=TIGHT).value

    def joint(x):
        def f(z, x):
            return {"first": f1(z["first"], x, w1), "second": f2(z["second"], z["first"], w2)}

        z0 = {"first": jnp.zeros_like(x), "second": jnp.zeros_like(x)}
        return deq_jax.fixed_point(f, z0, x, solver=TIGHT).value["second"]

    np.testing.assert_allclose(joint(x), stacked(x), rtol=1e-10)
    for one, other in zip(jax.vjp(joint, x)[1](x), jax.vjp(stacked, x)[1](x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_a_weight_tied_network_of_growing_depth_converges_to_the_equilibrium(x64):
    f, w, x = tanh_network(jax.random.key(2), 3, 6, radius=0.8, dtype=jnp.float64)
    z_star = TIGHT(lambda z: f(z, x, w), jnp.zeros_like(x)).value
    depths = (1, 4, 16, 64, 256)
    gaps = [
        float(jnp.linalg.norm(deq_jax.unrolled(f, jnp.zeros_like(x), x, w, steps=depth) - z_star)) for depth in depths
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-12


def test_without_an_injection_the_output_forgets_the_input(x64):
    f, w, _ = tanh_network(jax.random.key(3), 3, 6, dtype=jnp.float64)
    starts = jax.random.normal(jax.random.key(4), (3, 6))
    # The equilibrium is zero whatever the start: measure it by its size, a relative residual never gets small there.
    z = deq_jax.unrolled(lambda z: f(z, 0.0, w), starts, steps=1000)
    np.testing.assert_allclose(z, 0, atol=1e-12)


def test_a_warm_start_saves_evaluations_on_slowly_changing_inputs():
    cell = nn.FeedForwardCell(6, 32, kernel_init=nnx.initializers.normal(0.12), rngs=nnx.Rngs(0))
    layer = nn.DEQ(cell, solver=functools.partial(deq_jax.anderson, tol=1e-4))
    x = jax.random.normal(jax.random.key(0), (4, 6))
    z, cold, warm = layer(x).value, 0, 0
    for t in range(1, 6):
        drifted = x + 0.01 * t
        cold += int(layer(drifted).iterations.sum())
        solution = layer(drifted, z0=z)
        warm += int(solution.iterations.sum())
        z = solution.value
        assert (solution.status == deq_jax.Status.CONVERGED).all()
    assert warm < 0.7 * cold
