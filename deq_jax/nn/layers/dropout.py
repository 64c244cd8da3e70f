"""Dropout for equilibria: masks that are drawn once, outside the solve, and are the same in all of its evaluations."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

Masks = tuple[Float[Array, "batch ..."], ...]


class DropoutMasks(nnx.Module):
    """Draws masks of ``0`` and ``1 / (1 − rate)``, to multiply with; in an evaluation (``model.eval()``) none.

    A mask that changed from evaluation to evaluation would leave no fixed point to find. So a cell takes its masks as a
    part of the injection, ``[batch, ...]``, each sample its own.

    Args:
        rate: share of the entries that are dropped.
        rngs: where the masks are drawn from, its stream ``dropout``.

    Raises:
        ValueError: ``rate`` is not from 0 to below 1.

    Source: Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks", 2016;
    for equilibria Bai et al., "Deep equilibrium models", 2019.
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be from 0 to below 1, got {rate}.")
        self.rate = rate
        self.deterministic = False
        self.rngs = nnx.Rngs(dropout=rngs.dropout())

    def __call__(self, *shapes: tuple[int, ...]) -> Masks:
        """A mask ``[batch, ...]`` of each shape; none where nothing is dropped."""
        if self.deterministic or not self.rate:
            return ()
        keys = jax.random.split(self.rngs.dropout(), len(shapes))
        return tuple(
            jax.random.bernoulli(key, 1 - self.rate, shape).astype(jnp.float32) / (1 - self.rate)
            for key, shape in zip(keys, shapes, strict=True)
        )


def dropped(y: Float[Array, "batch ..."], masks: Masks, position: int) -> Float[Array, "batch ..."]:
    """``y`` times the mask of that position; ``y`` where there are no masks."""
    return y * masks[position].astype(y.dtype) if masks else y
