"""Random changes to the images of a batch, each image on its own: pure, and jitted within the training step."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key

from deq_jax.tasks.images.data import Images


def augment(
    key: Key[Array, ""],
    images: Images,
    *,
    flip: bool = False,
    shift: int = 0,
    padding: Literal["reflect", "zero"] = "reflect",
) -> Images:
    """Mirror each image with probability 1/2, and move it by −shift to shift pixels along either side.

    What moves in from beyond the edge is the image reflected there, without repeating the edge, or black.
    """
    flip_key, shift_key = jax.random.split(key)
    if flip:
        is_flipped = jax.random.bernoulli(flip_key, shape=(len(images),))
        images = jnp.where(is_flipped[:, None, None, None], images[:, :, ::-1], images)
    if shift:
        offsets = jax.random.randint(shift_key, (len(images), 2), 0, 2 * shift + 1)
        images = _shifted(jnp.asarray(images), offsets, shift, padding)
    return jnp.asarray(images)


def _shifted(images: Array, offsets: Array, shift: int, padding: str) -> Array:
    edge = [(0, 0), (shift, shift), (shift, shift), (0, 0)]
    padded = jnp.pad(images, edge, mode="reflect" if padding == "reflect" else "constant")

    def crop(image: Array, offset: Array) -> Array:
        return lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])

    return jax.vmap(crop)(padded, offsets)
