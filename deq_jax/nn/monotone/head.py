"""What stands after a monotone equilibrium: a linear map, so that its certificate reaches the logits."""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from deq_jax.nn.layers.conv import uniform_by_fan_in
from deq_jax.nn.layers.pooling import average_pool, check_divides
from deq_jax.nn.monotone.cells import interior


class LinearHead(nnx.Module):
    """A linear map of a state, its last leaf ``[batch, ...]``, to logits, with average pooling or without.

    Args:
        shape: those of a sample of the last leaf, with its border.
        num_classes: classes to tell apart.
        pool: side of average pooling's windows, which must divide what is within the border; None: all of the leaf, its
            border included.
        border: width of the border.
        rngs: where the initial values are drawn from; PyTorch's defaults.

    Raises:
        ValueError: ``pool`` does not divide height and width.

    Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, the authors' code.
    """

    def __init__(
        self, shape: Sequence[int], num_classes: int, *, pool: int | None = None, border: int = 0, rngs: nnx.Rngs
    ):
        self.pool, self.border = pool, border
        *sides, channels = shape
        if pool is not None:
            sides = [side - 2 * border for side in sides]
            check_divides(pool, *sides)
            sides = [side // pool for side in sides]
        features = channels
        for side in sides:
            features *= side
        uniform = uniform_by_fan_in(features)
        self.linear = nnx.Linear(features, num_classes, kernel_init=uniform, bias_init=uniform, rngs=rngs)

    def __call__(self, z: Array | tuple[Array, ...]) -> Float[Array, "batch num_classes"]:
        """Logits."""
        last = jax.tree.leaves(z)[-1]
        pooled = last if self.pool is None else average_pool(interior(last, self.border), self.pool)
        return self.linear(pooled.reshape(last.shape[0], -1))

    def matrix(self) -> Float[Array, "features num_classes"]:
        """What it multiplies a state by, up to an orthogonal map: pooling shrinks by its windows' side."""
        return self.linear.kernel[...] / (1 if self.pool is None else self.pool)
