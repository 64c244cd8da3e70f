"""Operators against the dense matrices that they stand for, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree

from deq_jax.nn.monotone import parametrisation
from deq_jax.operators.circulant import filtered, symbol
from deq_jax.operators.matrices import accretive_inverse, norm_bound

M = 0.5


def drawn(seed, *shape, size=1.0):
    return size * jax.random.normal(jax.random.key(seed), shape)


def around_the_edges(z, kernel, stride=1):
    side = kernel.shape[0] // 2
    padded = jnp.pad(z, ((0, 0), (side, side), (side, side), (0, 0)), mode="wrap")
    return lax.conv_general_dilated(
        padded, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def dense():
    return parametrisation.dense(drawn(0, 6, 6, size=2), drawn(1, 6, 6, size=5), M), jnp.zeros((1, 6))


def circulant():
    A, B = drawn(0, 3, 3, 2, 2), drawn(1, 3, 3, 2, 2, size=2)
    return parametrisation.circulant(A, B, M, (4, 5)), jnp.zeros((1, 4, 5, 2))


TIERS = [(6, 6), (4, 4)]


def kernels_of_tiers():
    return (
        [drawn(0, 3, 3, 2, 2), drawn(1, 3, 3, 3, 3)],
        [drawn(2, 3, 3, 2, 3)],
        [drawn(3, 3, 3, 2, 2), drawn(4, 3, 3, 3, 3)],
    )


def tiers():
    A, S, B = kernels_of_tiers()
    return parametrisation.tiers(A, S, B, M, TIERS), (jnp.zeros((1, 6, 6, 2)), jnp.zeros((1, 4, 4, 3)))


def matrix_of(function, z):
    flat, restored = ravel_pytree(z)
    return np.asarray(jax.vmap(lambda v: ravel_pytree(function(restored(v)))[0])(jnp.eye(flat.size))).T


@pytest.mark.parametrize("make", [dense, circulant, tiers])
def test_it_is_monotone_by_m_and_its_parts_belong_together(x64, make):
    W, z = make()
    dense_W = matrix_of(W, z)
    monotone = np.eye(len(dense_W)) - dense_W
    assert np.linalg.eigvalsh((monotone + monotone.T) / 2).min() >= M - 1e-12
    np.testing.assert_allclose(matrix_of(W.transposed(), z), dense_W.T, atol=1e-12)
    for operator, one in ((W, monotone), (W.transposed(), monotone.T)):
        inverse = matrix_of(operator.resolvent(0.7), z)
        np.testing.assert_allclose(inverse @ (np.eye(len(one)) + 0.7 * one), np.eye(len(one)), atol=1e-11)
    exact = np.linalg.norm(monotone, 2)
    # The bound of tiers is that of their blocks' norms, and twofold for their links.
    assert exact * (1 - 1e-12) <= W.norm() <= exact * (2 if make is tiers else 1.1)


def test_tiers_are_the_convolutions_that_they_are_made_of(x64):
    """``A`` has convolutions on its diagonal and strided ones, padded to the next tier, below it."""
    (a0, a1), (s0,), (b0, b1) = kernels_of_tiers()
    W, z = tiers()

    def lower(z):
        strided = jnp.pad(around_the_edges(z[0], s0, 2), ((0, 0), (0, 1), (0, 1), (0, 0)))
        return around_the_edges(z[0], a0), strided + around_the_edges(z[1], a1)

    def own(z):
        return around_the_edges(z[0], b0), around_the_edges(z[1], b1)

    dense_A, dense_B = matrix_of(lower, z), matrix_of(own, z)
    symmetric = (1 - M) * np.eye(len(dense_A)) - dense_A.T @ dense_A
    dense_W, fine = matrix_of(W, z), z[0].size
    np.testing.assert_allclose(dense_W + dense_W.T, 2 * symmetric, atol=1e-12)
    assert not dense_W[:fine, fine:].any()
    for block in (np.r_[0:fine], np.r_[fine : len(dense_W)]):
        expected = (symmetric + dense_B - dense_B.T)[np.ix_(block, block)]
        np.testing.assert_allclose(dense_W[np.ix_(block, block)], expected, atol=1e-12)


@pytest.mark.parametrize(("phases", "stride"), [(1, 1), (2, 1), (2, 2)])
def test_a_symbol_convolves_around_the_edges(x64, phases, stride):
    kernel, z = drawn(0, 3, 3, 2, 4), drawn(1, 2, 4, 6, 2)
    y = filtered(symbol(kernel, (4, 6), phases=phases, stride=stride), z, phases=(phases, phases // stride))
    np.testing.assert_allclose(y, around_the_edges(z, kernel, stride), atol=1e-12)


def test_a_kernel_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="5×5 does not fit an image of 4×4"):
        symbol(jnp.ones((5, 5, 1, 1)), (4, 4))
    with pytest.raises(ValueError, match="2×2 phases do not divide"):
        symbol(jnp.ones((3, 3, 1, 1)), (5, 4), phases=2)


def test_many_matrices_are_inverted_by_halves(x64):
    a = jnp.eye(70) + 2j * drawn(0, 3, 70, 70)
    accretive = jnp.eye(70) + a @ jnp.conj(jnp.swapaxes(a, 1, 2)) / 70 + (a - jnp.conj(jnp.swapaxes(a, 1, 2)))
    np.testing.assert_allclose(
        accretive_inverse(accretive) @ accretive, jnp.broadcast_to(jnp.eye(70), a.shape), atol=1e-10
    )


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_a_norm_is_bounded_from_above_and_closely_at_any_scale(size):
    a = drawn(0, 5, 40, 30, size=size)
    exact = np.linalg.norm(np.asarray(a, np.float64), 2, axis=(1, 2)).max()
    assert exact * (1 - 1e-5) <= norm_bound(a) <= 1.1 * exact
