import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax import nn


def small(**settings):
    defaults = {"channels": 8, "inner_channels": 8, "num_groups": 2, "pool": 2, "rngs": nnx.Rngs(0)}
    return nn.DEQClassifier((4, 4, 1), 3, **(defaults | settings))


def test_the_chapter_s_model_has_its_number_of_parameters():
    model = nnx.eval_shape(lambda: nn.DEQClassifier(rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == 64_842


def test_logits_and_equilibrium():
    model = small(solver=functools.partial(deq_jax.anderson, tol=1e-4))
    logits, sol = model(jax.random.uniform(jax.random.key(0), (5, 4, 4, 1)))
    assert logits.shape == (5, 3)
    assert sol.value.shape == (5, 4, 4, 8)
    assert (sol.residual <= 1e-4).all()


def test_pooling_averages_windows():
    model = small()
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
    pooled = model._pooled(x).reshape(2, 2, 2, 8)
    np.testing.assert_allclose(pooled[1, 0, 1], x[1, 0:2, 2:4].mean((0, 1)), atol=1e-6)


def test_evaluation_changes_nothing():
    model = small()
    model.eval()
    before = jax.tree.map(jnp.array, nnx.as_pure(nnx.state(model)))
    model(jnp.ones((2, 4, 4, 1)))
    jax.tree.map(np.testing.assert_array_equal, nnx.as_pure(nnx.state(model)), before)


def test_pooling_must_fit():
    with pytest.raises(ValueError, match="pool must divide"):
        small(pool=3)


def test_images_of_another_size_are_refused():
    for shape in [(2, 8, 8, 1), (2, 1, 4, 4)]:
        with pytest.raises(ValueError, match=r"the classifier takes images \[batch, 4, 4, 1\], got \[2, "):
            small()(jnp.ones(shape))
