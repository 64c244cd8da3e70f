import jax
import numpy as np
import pytest

from deq_jax import nn


@pytest.mark.parametrize(("pool", "reduce"), [(nn.average_pool, np.mean), (nn.max_pool, np.max)])
def test_pooling_reduces_every_window(pool, reduce):
    x = jax.random.normal(jax.random.key(0), (2, 6, 4, 3))
    pooled = pool(x, 2)
    assert pooled.shape == (2, 3, 2, 3)
    for row in range(3):
        for column in range(2):
            window = np.asarray(x)[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            np.testing.assert_allclose(pooled[:, row, column], reduce(window, axis=(1, 2)), atol=1e-6)


def test_windows_must_fit():
    with pytest.raises(ValueError, match="pool must divide the image's sides: got pool 4 for 6 × 4 images"):
        nn.max_pool(jax.numpy.zeros((1, 6, 4, 1)), 4)
