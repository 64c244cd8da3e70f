import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

import deq_jax
from deq_jax import nn
from tests.unchecked import unchecked

TIGHT = functools.partial(deq_jax.anderson, tol=1e-12, max_iter=500)


def test_the_feed_forward_cell_is_its_formula():
    cell = nn.FeedForwardCell(3, 5, activation=jax.nn.relu, rngs=nnx.Rngs(0))
    z, x = jnp.ones((2, 5)), jnp.arange(6.0).reshape(2, 3)
    expected = np.maximum(z @ cell.W[...] + x @ cell.U[...] + cell.b[...], 0)
    np.testing.assert_allclose(cell(z, x), expected, rtol=1e-6)
    assert cell.initial_state(x).shape == (2, 5)


def stock_resnet_cell(cell, z, x):
    """The chapter's formula in Flax's own layers, on our parameters."""

    def conv(x, layer):
        return jax.lax.conv_general_dilated(
            x, layer.kernel[...], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def norm(x, layer):
        stock = nnx.GroupNorm(x.shape[-1], num_groups=layer.num_groups, epsilon=1e-5, rngs=nnx.Rngs(0))
        return stock(x)

    y = norm(jax.nn.relu(conv(z, cell.conv1)), cell.norm1)
    return norm(jax.nn.relu(z + norm(x + conv(y, cell.conv2), cell.norm2)), cell.norm3)


def test_an_injection_without_a_batch_axis_is_refused():
    cell = nn.FeedForwardCell(4, 6, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"\[batch, 4\], got \[4\]"):
        unchecked(type(cell).initial_state)(cell, jnp.ones(4))


def test_the_resnet_cell_is_its_formula():
    cell = nn.ResNetCell(8, 16, num_groups=4, rngs=nnx.Rngs(0))
    z, x = jax.random.normal(jax.random.key(0), (2, 3, 6, 5, 8))
    np.testing.assert_allclose(cell(z, x), stock_resnet_cell(cell, z, x), atol=1e-5)  # float32 behind three norms


def test_the_pre_activation_cell_is_its_formula():
    cell = nn.PreActivationCell(8, 16, num_groups=4, rngs=nnx.Rngs(0))
    z, x = jax.random.normal(jax.random.key(0), (2, 3, 6, 5, 8))
    y = cell.conv1(jnp.maximum(cell.norm1(z), 0))
    np.testing.assert_allclose(cell(z, x), x + cell.conv2(jnp.maximum(cell.norm2(y), 0)), atol=1e-6)
    np.testing.assert_array_equal(cell.initial_state(x), x)


def test_the_injection_cell_is_its_formula():
    cell = nn.InjectionCell(8, 16, num_groups=4, rngs=nnx.Rngs(0))
    z, x = jax.random.normal(jax.random.key(0), (2, 3, 6, 5, 8))
    y = cell.conv1(jnp.maximum(cell.norm1(z), 0)) + cell.conv_x(jnp.maximum(cell.norm_x(x), 0))
    np.testing.assert_allclose(cell(z, x), x + cell.conv2(jnp.maximum(cell.norm2(y), 0)), atol=1e-6)
    np.testing.assert_array_equal(cell.initial_state(x), x)
    assert cell.conv1.kernel.shape == (1, 1, 8, 16)


def test_the_injection_cell_without_its_state_s_kernel_is_an_ordinary_block():
    cell = nn.InjectionCell(8, 16, num_groups=4, rngs=nnx.Rngs(0))
    cell.conv1.kernel[...] *= 0
    block = nn.PreActivationCell(8, 16, num_groups=4, rngs=nnx.Rngs(0))
    block.conv1, block.conv2 = cell.conv_x, cell.conv2
    x = jax.random.normal(jax.random.key(0), (3, 6, 5, 8))
    np.testing.assert_allclose(nn.DEQ(cell)(x).value, block.as_layer(x), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "x", "product"),
    [
        (lambda: nn.FeedForwardCell(5, 7, rngs=nnx.Rngs(0)), jnp.ones((2, 5)), r"f32\[2,7\]\S* dot\("),
        # Of W₂ and U; W₁ may have become a matrix product.
        (lambda: nn.InjectionCell(8, 16, num_groups=4, rngs=nnx.Rngs(0)), jnp.ones((2, 4, 4, 8)), "window={size=3x3"),
    ],
)
def test_the_compiler_takes_what_only_the_injection_passes_out_of_the_loop(make, x, product):
    graph, state = nnx.split(nn.DEQ(make()))
    solve = jax.jit(lambda state, x: nnx.merge(graph, state)(x).value)
    text = solve.lower(state, x).compile().as_text()
    computations = dict(re.findall(r"^(?:ENTRY )?(%[\w.-]+) [^\n]*{\n(.*?)^}", text, re.MULTILINE | re.DOTALL))
    (body,) = set(re.findall(r" while\(.*body=(%[\w.-]+)", text))
    reached, todo = set(), [body]
    while todo:
        name = todo.pop()
        reached.add(name)
        todo += [
            other for other in re.findall(r"%[\w.-]+", computations[name]) if other in computations.keys() - reached
        ]
    assert len(re.findall(product, text)) == 2
    assert len(re.findall(product, "".join(computations[name] for name in reached))) == 1


def test_the_resnet_cell_starts_small():
    cell = nn.ResNetCell(48, 64, rngs=nnx.Rngs(0))
    for layer in (cell.conv1, cell.conv2):
        np.testing.assert_allclose(jnp.std(layer.kernel[...]), 0.01, rtol=0.02)  # 27,648 draws
        assert layer.bias is None
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(cell))) == 2 * 27648 + 2 * (64 + 48 + 48)


def test_the_chapter_s_small_cell_has_right_gradients(x64):
    # The chapter checks the input only, on ResNetLayer(2, 2, num_groups=2) and a 3 × 3 image; here the parameters too.
    cell = nn.ResNetCell(2, 2, num_groups=2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    graph, state = nnx.split(cell)
    x = jax.random.normal(jax.random.key(1), (1, 3, 3, 2), jnp.float64)

    @jax.jit
    def z_star(x, state):
        return deq_jax.fixed_point(lambda z, x: nnx.merge(graph, state)(z, x), jnp.zeros_like(x), x, solver=TIGHT).value

    # Finite differences across a ReLU's kink and a norm over three numbers: as loose as the chapter's atol.
    check_grads(z_star, (x, nnx.as_pure(state)), order=1, modes=["rev"], eps=1e-6, atol=1e-4, rtol=1e-4)
    check_grads(z_star, (x, nnx.as_pure(state)), order=2, modes=["rev"], eps=1e-6, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("make", [nn.FeedForwardCell, nn.ResNetCell, nn.PreActivationCell, nn.InjectionCell])
def test_the_equilibrium_does_not_depend_on_the_start(x64, make):
    if make is not nn.FeedForwardCell:
        cell = make(4, 8, num_groups=2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        x = z = jax.random.normal(jax.random.key(0), (2, 4, 4, 4), jnp.float64)
    else:
        cell = nn.FeedForwardCell(3, 6, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        x, z = jnp.ones((2, 3)), jax.random.normal(jax.random.key(0), (2, 6), jnp.float64)
    from_zero = TIGHT(lambda z: cell(z, x), jnp.zeros_like(z))
    from_afar = TIGHT(lambda z: cell(z, x), 3 * z)
    assert (from_zero.status == deq_jax.Status.CONVERGED).all()
    np.testing.assert_allclose(from_zero.value, from_afar.value, atol=1e-10)  # both residuals 1e-12, both contractive
