import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax import nn

SHAPE, CHANNELS = (8, 8, 1), 8
IMAGES = jax.random.uniform(jax.random.key(0), (5, *SHAPE))


def classifier(make_body, pool=None):
    rngs = nnx.Rngs(0)
    stem = nn.Stem(SHAPE, CHANNELS, stages=(nn.Stage(4, 2),), rngs=rngs)
    return nn.ImageClassifier(stem, make_body(rngs), nn.Head(stem.out_shape, 3, pool=pool, rngs=rngs))


def deq(rngs, make=nn.ResNetCell):
    cell = make(CHANNELS, CHANNELS, num_groups=2, rngs=rngs)
    return nn.DEQ(cell, solver=functools.partial(deq_jax.anderson, tol=1e-4))


def layers(rngs, make=nn.ResNetCell):
    return nn.Layers([make(CHANNELS, CHANNELS, num_groups=2, rngs=rngs) for _ in range(3)])


@pytest.mark.parametrize("make", [nn.ResNetCell, nn.PreActivationCell, nn.InjectionCell])
def test_logits_and_equilibrium(make):
    model = classifier(lambda rngs: deq(rngs, make))
    logits, sol = model(IMAGES)
    assert logits.shape == (5, 3)
    assert sol.value.shape == (5, 4, 4, CHANNELS)
    assert (sol.residual <= 1e-4).all()
    assert isinstance(model.cell, make)


@pytest.mark.parametrize("make", [nn.ResNetCell, nn.PreActivationCell])
def test_ordinary_layers_are_each_evaluated_once_on_weights_of_their_own(make):
    model = classifier(lambda rngs: layers(rngs, make))
    logits, sol = model(IMAGES)
    assert logits.shape == (5, 3)
    assert (sol.iterations == 3).all()
    assert jnp.isinf(sol.residual).all()
    assert model.cell is None
    first, second, third = model.body.cells
    assert not np.array_equal(first.conv1.kernel[...], second.conv1.kernel[...])
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, CHANNELS))
    by_hand = third.as_layer(second.as_layer(first.as_layer(x)))
    np.testing.assert_allclose(model.body(x).value, by_hand, atol=1e-6)


@pytest.mark.parametrize("make", [nn.ResNetCell, nn.PreActivationCell])
def test_a_cell_as_a_layer_is_a_residual_block(make):
    """With the branch switched off, what is left is the skip; ResNetCell normalises it."""
    cell = make(CHANNELS, CHANNELS, num_groups=2, rngs=nnx.Rngs(0))
    cell.conv2.kernel[...] *= 0
    z = jax.random.normal(jax.random.key(1), (2, 4, 4, CHANNELS))
    skip = cell.norm3(jax.nn.relu(z)) if make is nn.ResNetCell else z
    np.testing.assert_allclose(cell.as_layer(z), skip, atol=1e-6)


@pytest.mark.parametrize(("pool", "features"), [(None, CHANNELS), (2, 4 * CHANNELS), (4, CHANNELS)])
def test_the_head_pools_windows_or_the_whole(pool, features):
    head = nn.Head((4, 4, CHANNELS), 3, pool=pool, rngs=nnx.Rngs(0))
    assert head.linear.kernel.shape == (features, 3)
    z = jax.random.normal(jax.random.key(1), (6, 4, 4, CHANNELS))
    assert head(z).shape == (6, 3)


def test_windows_of_the_head_must_fit():
    with pytest.raises(ValueError, match="pool must divide"):
        nn.Head((4, 4, CHANNELS), 3, pool=3, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("body", [deq, layers])
def test_evaluation_does_not_depend_on_the_batch(body):
    model = classifier(body)
    model(IMAGES)  # moves the running averages
    model.eval()
    # Convolutions tiled otherwise: a few roundings of float32.
    np.testing.assert_allclose(model(IMAGES)[0][:1], model(IMAGES[:1])[0], atol=1e-5)
