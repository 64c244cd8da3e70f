"""Pooling: images become smaller by a whole factor."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from deq_jax.nn.layers.conv import Resized
from deq_jax.nn.layers.convolution import Image


def average_pool(x: Image, side: int) -> Resized:
    """The mean of every ``side`` × ``side`` window: ``[batch, height / side, width / side, channels]``.

    Args:
        x: images, ``[batch, height, width, channels]``.
        side: height and width of a window, and the step from one to the next.

    Raises:
        ValueError: ``side`` does not divide height and width.

    Source: the chapter, "Training your DEQ": ``AvgPool2d``.
    """
    return jnp.mean(_windows(x, side), axis=(2, 4))


def max_pool(x: Image, side: int) -> Resized:
    """The largest of every ``side`` × ``side`` window: ``[batch, height / side, width / side, channels]``.

    Args:
        x: images, ``[batch, height, width, channels]``.
        side: height and width of a window, and the step from one to the next.

    Raises:
        ValueError: ``side`` does not divide height and width.

    Source: Riesenhuber and Poggio, "Hierarchical models of object recognition in cortex", 1999.
    """
    return jnp.max(_windows(x, side), axis=(2, 4))


def check_divides(side: int, height: int, width: int) -> None:
    """Raise a ValueError unless windows of this side tile an image of ``height`` × ``width``."""
    if side < 1 or height % side or width % side:
        raise ValueError(f"pool must divide the image's sides: got pool {side} for {height} × {width} images.")


def _windows(x: Image, side: int) -> Float[Array, "batch rows side columns side channels"]:
    batch, height, width, channels = x.shape
    check_divides(side, height, width)
    return x.reshape(batch, height // side, side, width // side, side, channels)
