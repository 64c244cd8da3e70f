"""What is done to an image once, before the equilibrium: ordinary layers that make it smaller, and the injection."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from flax import nnx

from deq_jax.nn.layers.conv import Conv, Resized
from deq_jax.nn.layers.convolution import Image
from deq_jax.nn.layers.normalisation import BatchNorm
from deq_jax.nn.layers.pooling import average_pool, check_divides


class Stage(NamedTuple):
    """One layer of a stem: what it makes of ``[batch, height, width, in]``."""

    channels: int
    """Channels of its output."""
    factor: int = 1
    """By what factor it makes height and width smaller."""


class Stem(nnx.Module):
    """Convolution, down-sampling, batch norm and ReLU for every stage, then the injection: convolution and batch norm.

    Without stages it is the chapter's, one convolution and its batch norm.

    Args:
        image_shape: height, width and channels of an image.
        channels: channels of the injection; None where the last stage makes it.
        stages: the layers before it.
        pool: makes an image smaller by a factor, [`deq_jax.nn.average_pool`][] or [`deq_jax.nn.max_pool`][];
            None for convolutions with a stride.
        kernel_size: side of the square kernels, odd.
        kernel_init: draws the kernels; the default is PyTorch's, uniform in ±1/√fan_in.
        rngs: where the initial values are drawn from; PyTorch's defaults.

    Raises:
        ValueError: a factor does not divide the image that it meets where ``pool`` makes it smaller (a stride takes any
            size), ``kernel_size`` is even, or there are neither ``channels`` nor stages.

    Source: the chapter, "Training your DEQ", is the case without stages.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        channels: int | None,
        *,
        stages: Sequence[Stage] = (),
        pool: Callable[[Image, int], Resized] | None = average_pool,
        kernel_size: int = 3,
        kernel_init: nnx.Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        if channels is None and not stages:
            raise ValueError("a stem without channels has a stage that makes the injection; give one, or channels.")
        height, width, into = image_shape
        conv = functools.partial(Conv, kernel_size=kernel_size, kernel_init=kernel_init, rngs=rngs)
        self.pool = pool
        self.factors = tuple(stage.factor for stage in stages)
        self.convs: nnx.List[Conv] = nnx.List([])
        self.norms: nnx.List[BatchNorm] = nnx.List([])
        for stage in stages:
            if pool is not None:
                check_divides(stage.factor, height, width)
            height, width = -(-height // stage.factor), -(-width // stage.factor)  # a stride's last step may fall short
            stride = 1 if pool is not None else stage.factor
            # The batch norm has a bias.
            self.convs.append(conv(into, stage.channels, stride=stride, use_bias=False))
            self.norms.append(BatchNorm(stage.channels))
            into = stage.channels
        self.conv = None if channels is None else conv(into, channels)
        self.norm = None if channels is None else BatchNorm(channels)
        self.out_shape = (height, width, into if channels is None else channels)

    def __call__(self, images: Image) -> Resized:
        """The injection of floating-point images: ``[batch, *out_shape]``."""
        y = images
        for conv, norm, factor in zip(self.convs, self.norms, self.factors, strict=True):
            y = conv(y)
            if self.pool is not None and factor > 1:
                y = self.pool(y, factor)  # before the norm, which then has less to do
            y = jax.nn.relu(norm(y))
        return y if self.conv is None or self.norm is None else self.norm(self.conv(y))
