import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deq_jax.nn import Conv, FeedForwardCell
from tests.unchecked import unchecked


def test_images_from_numpy_are_taken_in_jax_s_precision():
    images = np.ones((1, 4, 4, 1))
    assert unchecked(Conv.__call__)(Conv(1, 1, rngs=nnx.Rngs(0)), images).dtype == jnp.float32
    cell = FeedForwardCell(2, 3, rngs=nnx.Rngs(0))
    assert unchecked(FeedForwardCell.initial_state)(cell, np.ones((2, 2))).dtype == jnp.float32


def test_initial_values_are_pytorch_s():
    layer = Conv(3, 4000, 3, rngs=nnx.Rngs(0))
    bound = 27**-0.5
    for values in (layer.kernel[...], layer.bias[...]):
        assert jnp.abs(values).max() <= bound
        # A uniform variable in ±b has the standard deviation b/√3; 4000 draws know it to about 1%.
        np.testing.assert_allclose(jnp.std(values), bound / 3**0.5, rtol=0.05)


def test_images_of_integers_are_refused():
    with pytest.raises(TypeError, match=r"got uint8.*Scale them first"):
        unchecked(Conv.__call__)(Conv(3, 4, rngs=nnx.Rngs(0)), jnp.ones((1, 4, 4, 3), jnp.uint8))


@pytest.mark.parametrize("shape", [(4, 4, 3), (1, 3, 4, 4), (1, 4, 4, 1)])
def test_images_of_another_form_are_refused(shape):
    with pytest.raises(ValueError, match=r"takes images \[batch, height, width, 3\], got \["):
        unchecked(Conv.__call__)(Conv(3, 4, rngs=nnx.Rngs(0)), jnp.ones(shape))
