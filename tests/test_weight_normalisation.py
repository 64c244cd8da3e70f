import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax import nn
from deq_jax.nn.deq import prepared


def loops(jaxpr):
    """The bodies of all loops in a traced function, as text."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            found.append(str(equation.params["body_jaxpr"]))
            continue
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            found += loops(inner) if hasattr(inner, "eqns") else []
    return found


def norms(conv):
    return np.sqrt(np.sum(np.square(conv.plain().kernel[...]), axis=(0, 1, 2)))


def test_every_output_channel_has_its_gain_for_a_norm():
    conv = nn.NormalisedConv(4, 6, max_gain=0.8, rngs=nnx.Rngs(0))
    conv.gain_logit[...] = jnp.linspace(-3, 3, 6)
    expected = 0.8 * jax.nn.sigmoid(jnp.linspace(-3, 3, 6))
    np.testing.assert_allclose(norms(conv), expected, rtol=1e-5)  # a few roundings of float32


def test_no_update_lifts_a_gain_above_its_bound():
    conv = nn.NormalisedConv(4, 6, max_gain=0.5, rngs=nnx.Rngs(0))
    conv.kernel[...] *= 1e3
    conv.gain_logit[...] += 1e3
    assert norms(conv).max() <= 0.5 * (1 + 1e-5)


@pytest.mark.parametrize("max_gain", [1.0, 0.1])
def test_it_starts_as_a_plain_convolution_would_where_the_bound_allows(max_gain):
    conv = nn.NormalisedConv(64, 48, max_gain=max_gain, std=0.01, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(norms(conv), min(0.01 * np.sqrt(9 * 64), max_gain / 2), rtol=1e-5)


@pytest.mark.parametrize("std", [None, 0.2])
def test_gains_without_a_bound_start_at_the_norms_that_were_drawn_and_may_be_any(std):
    conv = nn.NormalisedConv(32, 6, max_gain=None, std=std, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(conv.plain().kernel[...], conv.kernel[...], rtol=1e-5)
    drawn = np.asarray(conv.kernel[...])
    expected = 3**-0.5 * 288**-0.5 if std is None else std  # that of uniform numbers in ±1/√288
    np.testing.assert_allclose(drawn.std(), expected, rtol=0.05)  # of 1,728 numbers, whose own error is 1.7%
    assert (abs(drawn).max() <= 288**-0.5) == (std is None)
    conv.gain[...] = jnp.linspace(-3, 3, 6)
    np.testing.assert_allclose(norms(conv), abs(np.linspace(-3, 3, 6)), rtol=1e-5)


def test_a_kernel_of_zeros_is_no_nan():
    conv = nn.NormalisedConv(2, 2, rngs=nnx.Rngs(0))
    conv.kernel[...] *= 0
    assert (conv(jnp.ones((1, 3, 3, 2))) == 0).all()


def test_the_gain_must_be_positive():
    with pytest.raises(ValueError, match=r"max_gain must be positive, got 0\.0"):
        nn.NormalisedConv(2, 2, max_gain=0.0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="std must be positive"):
        nn.NormalisedConv(2, 2, std=0.0, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("make", [nn.ResNetCell, nn.PreActivationCell, nn.InjectionCell])
def test_the_prepared_cell_is_the_cell(make):
    cell = make(4, 8, num_groups=2, max_gain=1.0, rngs=nnx.Rngs(0))
    z, x = jax.random.normal(jax.random.key(0), (2, 3, 5, 5, 4))
    to_solve = prepared(cell)
    assert isinstance(to_solve.conv1, nn.Conv)
    assert isinstance(cell.conv1, nn.NormalisedConv)
    np.testing.assert_allclose(to_solve(z, x), cell(z, x), atol=1e-6)
    plain = make(4, 8, num_groups=2, rngs=nnx.Rngs(0))
    assert prepared(plain) is plain


def test_kernels_are_normalised_outside_the_solve():
    """No square root of a kernel's norm in the loop's body, and gradients reach what the kernel is made of."""
    layer = nn.DEQ(
        nn.PreActivationCell(4, 8, num_groups=2, max_gain=0.5, rngs=nnx.Rngs(0)),
        solver=functools.partial(deq_jax.anderson, tol=1e-5, max_iter=30, m=3),
    )
    graph, state = nnx.split(layer)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 4))

    def loss(state):
        return jnp.mean(nnx.merge(graph, state)(x).value ** 3)

    traced = jax.make_jaxpr(loss)(state).jaxpr
    (body,) = loops(traced)
    assert "rsqrt" in body  # of the group norms
    assert "logistic" in str(traced)
    assert "logistic" not in body
    grads = jax.jit(jax.grad(loss))(state)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))
