"""States of several resolutions: a tuple of images, the finest first, each of half the sides of the one before."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array

from deq_jax.nn.layers.convolution import Size
from deq_jax.operators.tiers import Images


def tier_sizes(height: int, width: int, tiers: int) -> tuple[Size, ...]:
    """Height and width of each tier.

    Raises:
        ValueError: there are fewer than two tiers, or the halvings do not divide the image.
    """
    if tiers < 2:
        raise ValueError(f"a state of several resolutions has two at least, got {tiers}; give the channels of each.")
    factor = 2 ** (tiers - 1)
    if height % factor or width % factor:
        raise ValueError(
            f"{tiers} tiers halve the image {tiers - 1} times, which {height}×{width} does not allow: its sides must "
            f"be multiples of {factor}. Crop or pad it, or use fewer tiers."
        )
    return tuple((height // 2**i, width // 2**i) for i in range(tiers))


def zero_tiers(x: Array, sizes: Sequence[Size], channels: Sequence[int]) -> Images:
    """Zeros for every sample of ``x``, in its dtype."""
    return tuple(jnp.zeros((x.shape[0], *size, width), x.dtype) for size, width in zip(sizes, channels, strict=True))
