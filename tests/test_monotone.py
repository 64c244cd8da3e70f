"""Monotone cells in a layer, and what they certify."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

import deq_jax
from deq_jax import nn

SHAPE = (4, 4, 2)


def drawn(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def cell_of(kind, **settings):
    rngs = nnx.Rngs(0)
    if kind == "dense":
        return nn.DenseMonotoneCell(5, 6, rngs=rngs, **settings), drawn(1, 2, 5)
    if kind == "conv":
        return nn.ConvMonotoneCell(SHAPE, 3, rngs=rngs, **settings), drawn(1, 2, *SHAPE)
    return nn.TiersMonotoneCell((6, 6, 2), (2, 3), rngs=rngs, **settings), drawn(1, 2, 6, 6, 2)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["dense", "conv", "tiers"])
def test_its_equilibrium_is_found_far_from_initial_weights_and_has_right_gradients(x64, kind):
    cell, x = cell_of(kind, m=0.5, param_dtype=jnp.float64)
    graph, params = nnx.split(cell)
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    solver = functools.partial(deq_jax.peaceman_rachford, tol=1e-12, max_iter=2000)

    @jax.jit
    def state(params, x):
        return nn.DEQ(nnx.merge(graph, params), solver=solver)(x)

    solution = state(params, x)
    assert (solution.status == deq_jax.Status.CONVERGED).all()
    again = nnx.merge(graph, params)(solution.value, x)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(solution.value), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)
    # Differences of 1e-6 are exact to about 1e-9 here, but where a ReLU bends within them.
    check_grads(
        lambda params, x: jax.tree.leaves(state(params, x).value)[-1], (params, x), 1, ["rev"], eps=1e-6, rtol=1e-5
    )


def test_a_border_stays_zero_and_any_solver_may_solve():
    cell, x = cell_of("conv")
    solution = nn.DEQ(cell, solver=functools.partial(deq_jax.anderson, tol=1e-5))(x)
    assert (solution.status == deq_jax.Status.CONVERGED).all()
    border = np.ones(cell.shape, bool)
    border[1:-1, 1:-1] = False
    assert not np.asarray(solution.value)[:, border].any()


def test_kernels_count_by_their_direction_and_gain_alone():
    cell, _x = cell_of("conv")
    before = cell.operator().matrices
    cell.A[...] *= 100.0
    np.testing.assert_allclose(cell.operator().matrices, before, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda rngs: nn.DenseMonotoneCell(5, 6, m=0.0, rngs=rngs), "m must be positive"),
        (lambda rngs: nn.ConvMonotoneCell(SHAPE, 3, kernel_size=5, rngs=rngs), "kernel_size 5 exceeds an image of 4×4"),
        (lambda rngs: nn.TiersMonotoneCell((6, 7, 2), (2, 3), rngs=rngs), "multiples of 2"),
        (lambda rngs: nn.TiersMonotoneCell((6, 6, 2), (2,), rngs=rngs), "two at least"),
        (lambda rngs: nn.Standardised(SHAPE, (0.5,)), "need 2 numbers each"),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make(nnx.Rngs(0))


def classifier(m=2.0):
    cell = nn.ConvMonotoneCell((4, 4, 1), 6, m=m, rngs=nnx.Rngs(0))
    deq = nn.DEQ(cell, solver=functools.partial(deq_jax.peaceman_rachford, tol=1e-6, max_iter=300))
    head = nn.LinearHead(cell.state_shape, 3, pool=2, border=1, rngs=nnx.Rngs(1))
    return nn.ImageClassifier(nn.Standardised((4, 4, 1), (0.5,), (0.25,)), deq, head)


def length(images):
    return jnp.sqrt(jnp.sum(images**2, axis=(1, 2, 3), keepdims=True))


def moved(model, x, distance, gain):
    """The images after a search, within a distance, for where ``gain`` of their logits is largest."""

    @jax.jit
    def step(change):
        gradient = jax.grad(lambda change: gain(model(x + change)[0]).sum())(change)
        change = change + 0.3 * distance * gradient / length(gradient)
        size = length(change)
        return change * jnp.minimum(1, distance / size)

    change = 0.01 * distance * drawn(7, *x.shape)
    for _ in range(25):
        change = step(change)
    return x + change


@pytest.mark.long
def test_no_attack_moves_logits_further_than_the_bound():
    model, x = classifier(), jax.random.uniform(jax.random.key(3), (16, 4, 4, 1))
    logits, bound = model(x)[0], float(nn.lipschitz_bound(model))
    attacked = moved(model, x, 0.3, lambda now: jnp.sum((now - logits) ** 2, axis=1))
    further = jnp.linalg.norm(model(attacked)[0] - logits, axis=1)
    assert (further <= 0.3 * bound * 1.001).all()
    assert further.max() > 0.02 * bound  # the attack has done something


@pytest.mark.long
def test_no_attack_changes_an_answer_within_its_radius():
    model, x = classifier(), jax.random.uniform(jax.random.key(3), (16, 4, 4, 1))
    logits, solution = model(x)
    radius = nn.certified_radius(model, logits, solution)
    assert (radius > 0).sum() >= 12
    answer = jnp.argmax(logits, axis=1)[:, None]

    def against(now):
        own = jnp.take_along_axis(now, answer, axis=1)
        return jnp.max(jnp.where(jnp.arange(3)[None] == answer, -jnp.inf, now - own), axis=1)

    attacked = moved(model, x, radius[:, None, None, None], against)
    assert (jnp.argmax(model(attacked)[0], axis=1) == answer[:, 0]).all()
    far = moved(model, x, 60 * radius[:, None, None, None], against)
    assert (jnp.argmax(model(far)[0], axis=1) != answer[:, 0]).any()


def test_a_solve_that_fell_short_certifies_less():
    model, x = classifier(), jax.random.uniform(jax.random.key(3), (4, 4, 4, 1))
    logits, solution = model(x)
    short = solution._replace(residual=jnp.full(4, 1e-3))
    assert (nn.certified_radius(model, logits, short) < nn.certified_radius(model, logits, solution)).all()


def test_nothing_is_certain_of_another_cell():
    cell = nn.DEQ(nn.ResNetCell(8, 8, rngs=nnx.Rngs(0)))
    head = nn.LinearHead((4, 4, 8), 3, rngs=nnx.Rngs(1))
    with pytest.raises(TypeError, match="nothing certain is known of a ResNetCell"):
        nn.lipschitz_bound(nn.ImageClassifier(nn.Standardised((4, 4, 8)), cell, head))


@pytest.mark.parametrize("make", [lambda cell: nn.DEQ(cell, unroll=3), lambda cell: nn.Layers([cell] * 3)])
def test_layers_of_a_monotone_cell_take_the_injection_in_turn(make):
    cell, x = cell_of("dense")
    z = cell.initial_state(x)
    for _ in range(3):
        z = cell(z, x)
    solution = make(cell)(x)
    np.testing.assert_allclose(solution.value, z, rtol=1e-5, atol=1e-6)
    assert (solution.iterations == 3).all()
