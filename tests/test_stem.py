import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deq_jax import nn

STAGES = (nn.Stage(4, 2), nn.Stage(6), nn.Stage(8, 2))


@pytest.mark.parametrize("pool", [nn.average_pool, nn.max_pool, None])
def test_stages_make_the_image_smaller(pool):
    stem = nn.Stem((8, 12, 3), 5, stages=STAGES, pool=pool, rngs=nnx.Rngs(0))
    assert stem.out_shape == (2, 3, 5)
    x = stem(jax.random.uniform(jax.random.key(0), (7, 8, 12, 3)))
    assert x.shape == (7, 2, 3, 5)
    # The last batch norm: nothing after it.
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std((0, 1, 2)), 1, atol=1e-2)  # epsilon beside a small variance


def test_without_stages_it_is_the_chapters():
    chapter = nn.DEQClassifier((4, 4, 1), 3, channels=8, inner_channels=8, num_groups=2, pool=2, rngs=nnx.Rngs(0))
    stem = nn.Stem((4, 4, 1), 8, rngs=nnx.Rngs(0))
    images = jax.random.uniform(jax.random.key(0), (5, 4, 4, 1))
    np.testing.assert_array_equal(stem(images), chapter.inject(images))


def test_a_stride_keeps_every_other_pixel_of_the_convolution():
    strided = nn.Conv(3, 4, stride=2, rngs=nnx.Rngs(0))
    dense = nn.Conv(3, 4, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))
    np.testing.assert_allclose(strided(x), dense(x)[:, ::2, ::2], atol=1e-6)


def test_a_factor_must_fit():
    with pytest.raises(ValueError, match="got pool 2 for 3 × 3 images"):
        nn.Stem((6, 6, 1), 4, stages=(nn.Stage(4, 2), nn.Stage(4, 2)), rngs=nnx.Rngs(0))


@pytest.mark.long
def test_every_parameter_of_the_stem_has_a_gradient():
    stem = nn.Stem((8, 8, 1), 4, stages=STAGES, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(stem, nnx.Param, ...)
    images = jax.random.uniform(jax.random.key(0), (5, 8, 8, 1))

    def loss(params, rest):
        return jnp.sum(nnx.merge(graph, params, rest)(images) ** 3)

    grads = jax.grad(loss)(*nnx.as_pure((params, rest)))
    for path, leaf in jax.tree.leaves_with_path(grads):
        # A bias before a batch norm is taken away again.
        assert jnp.abs(leaf).max() > 0 or ".bias" in jax.tree_util.keystr(path)


def test_a_stride_takes_any_size():
    stem = nn.Stem((7, 10, 1), 4, stages=(nn.Stage(4, 2), nn.Stage(4, 4)), pool=None, rngs=nnx.Rngs(0))
    assert stem.out_shape == (1, 2, 4)
    assert stem(jnp.ones((3, 7, 10, 1))).shape == (3, 1, 2, 4)


def test_the_last_stage_may_make_the_injection():
    stem = nn.Stem((8, 12, 3), None, stages=STAGES, rngs=nnx.Rngs(0))
    assert stem.out_shape == (2, 3, 8)
    x = stem(jax.random.uniform(jax.random.key(0), (7, 8, 12, 3)))
    assert x.shape == (7, 2, 3, 8)
    assert x.min() == 0 < x.max()
    with pytest.raises(ValueError, match="a stem without channels has a stage that makes the injection"):
        nn.Stem((8, 12, 3), None, rngs=nnx.Rngs(0))
