"""What stands before and after a monotone equilibrium: linear maps, so that its certificate reaches the logits."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deq_jax.nn.convolution import Image
from deq_jax.nn.layers import along_channels, uniform_by_fan_in
from deq_jax.nn.monotone.cells import interior
from deq_jax.nn.pooling import average_pool, check_divides


class Standardised(nnx.Module):
    """Images less a mean, over a deviation, channel by channel; flat, ``[batch, n]``, where ``is_flat``.

    Args:
        image_shape: height, width and channels of an image.
        mean: a number for each channel; none for 0.
        deviation: a positive number for each channel; none for 1.
        is_flat: whether what comes out has one axis beside the batch.

    Raises:
        ValueError: there are as many numbers as channels in neither, or a deviation is not positive. When called: the
            images are not ``[batch, *image_shape]``.

    Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, the authors' code.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        mean: Sequence[float] = (),
        deviation: Sequence[float] = (),
        *,
        is_flat: bool = False,
    ):
        channels = image_shape[-1]
        self.image_shape, self.is_flat = tuple(image_shape), is_flat
        self.mean, self.deviation = tuple(mean) or (0.0,) * channels, tuple(deviation) or (1.0,) * channels
        if len(self.mean) != channels or len(self.deviation) != channels:
            raise ValueError(f"mean and deviation need {channels} numbers each, got {mean} and {deviation}.")
        if min(self.deviation) <= 0:
            raise ValueError(f"a deviation must be positive, got {deviation}.")

    def __call__(self, images: Image) -> Array:
        """The injection of floating-point images."""
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"the classifier takes images [batch, {', '.join(map(str, self.image_shape))}], got "
                f"{list(images.shape)}. Channels come last; one image is a batch of 1, image[None]."
            )
        mean, deviation = (along_channels(jnp.asarray(a, images.dtype), images) for a in (self.mean, self.deviation))
        x = (images - mean) / deviation
        return x.reshape(x.shape[0], -1) if self.is_flat else x

    def norm(self) -> float:
        """Its spectral norm."""
        return 1 / min(self.deviation)


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
