"""What is done to images first: a linear map of each channel, to numbers of about 0 and 1."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from deq_jax.nn.layers.conv import along_channels
from deq_jax.nn.layers.convolution import Image


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

    Source: the authors' codes of Winston and Kolter, "Monotone operator equilibrium networks", 2020, and of Bai et al.,
    "Multiscale deep equilibrium models", 2020.
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
