"""From images to what is injected into the finest resolution."""

from collections.abc import Callable, Sequence

from flax import nnx

from deq_jax.nn.classifiers.stem import Stage, Stem
from deq_jax.nn.layers.conv import SMALL, Resized
from deq_jax.nn.layers.convolution import Image
from deq_jax.nn.layers.dropout import DropoutMasks
from deq_jax.nn.layers.standardised import Standardised
from deq_jax.nn.multiscale.cell import Injection, mask_shapes


class MultiscaleStem(nnx.Module):
    """Images less a mean, over a deviation; a [`deq_jax.nn.Stem`][] without a last layer; and in training, masks.

    Args:
        image_shape: height, width and channels of an image.
        channels: those of the scales of the state, the finest first, which are also those of the last stage.
        stages: layers before that one.
        pool: as of [`deq_jax.nn.Stem`][].
        mean: a number for each channel of the images; none for 0.
        deviation: a positive number for each channel; none for 1.
        dropout: share of the channels of every scale that is dropped, the same in all evaluations of a solve.
        rngs: where initial values, N(0, 0.01²), and dropout masks are drawn from.

    Raises:
        ValueError: a factor does not divide the images ``[batch, height, width, channels]``, ``dropout`` is not from 0
            to below 1, or there are not as many ``mean`` and ``deviation`` as channels.

    Source: Bai, Koltun and Kolter, "Multiscale deep equilibrium models", 2020, the authors' code.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        channels: Sequence[int],
        *,
        stages: Sequence[Stage] = (),
        pool: Callable[[Image, int], Resized] | None = None,
        mean: Sequence[float] = (),
        deviation: Sequence[float] = (),
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.standardised = Standardised(image_shape, mean, deviation)
        last = Stage(channels[0])
        self.stem = Stem(image_shape, None, stages=(*stages, last), pool=pool, kernel_init=SMALL, rngs=rngs)
        self.out_shape = self.stem.out_shape
        self.channels = tuple(channels)
        self.masks = DropoutMasks(dropout, rngs=rngs)

    def __call__(self, images: Image) -> Injection:
        """The injection of floating-point images."""
        return Injection(self.stem(self.standardised(images)), self.masks(*mask_shapes(self.channels, images.shape[0])))
