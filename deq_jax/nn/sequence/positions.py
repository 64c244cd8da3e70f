"""Relative positions: how far back a position lies decides, beside what is there, how much it is attended to."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deq_jax.nn.layers.weight_normalisation import NormalisedLinear

ByDistance = Float[Array, "positions heads size"]


class RelativePositions(nnx.Module):
    """A key for every distance, ``W sin/cos(distance · 10000^(−2i / features))``, with a normalised matrix ``W``.

    Args:
        positions: distances that there are keys for, 0 … ``positions − 1``.
        features: features of the state.
        heads: heads of the attention.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from.

    Source: Dai et al., "Transformer-XL: attentive language models beyond a fixed-length context", 2019, section 3.3.
    """

    def __init__(self, positions: int, features: int, heads: int, *, param_dtype: DTypeLike, rngs: nnx.Rngs):
        self.positions = positions
        self.heads = heads
        self.linear = NormalisedLinear(features, features, use_bias=False, param_dtype=param_dtype, rngs=rngs)

    def __call__(self) -> ByDistance:
        """The keys, the nearest first."""
        kernel = self.linear.plain().kernel[...]
        features = kernel.shape[0]
        rates = 10_000.0 ** (-jnp.arange(0, features, 2, dtype=kernel.dtype) / features)
        angles = jnp.arange(self.positions, dtype=kernel.dtype)[:, None] * rates[None]
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], 1)[:, :features]
        return (waves @ kernel).reshape(self.positions, self.heads, -1)

    def plain(self) -> "FixedPositions":
        """The same keys, made once."""
        return FixedPositions(self())


class FixedPositions(nnx.Module):
    """Keys that are there already."""

    def __init__(self, keys: ByDistance):
        self.keys = nnx.Variable(keys)

    def __call__(self) -> ByDistance:
        """The keys, the nearest first."""
        return self.keys[...]


def shifted(scores: Float[Array, "batch heads length reach"]) -> Float[Array, "batch heads length reach"]:
    """From scores by distance, the farthest first, those by position: row ``i`` moved ``length − 1 − i`` to the left.

    Query ``i`` of ``length`` stands at position ``reach − length + i`` of ``reach``, and ``reach − 1 − c`` is the
    distance of column ``c``. What is moved in from the right belongs to positions to come.

    Source: Dai et al., 2019, appendix B.
    """
    batch, heads, length, reach = scores.shape
    padded = jnp.pad(scores, ((0, 0), (0, 0), (0, 0), (1, 0)))
    return padded.reshape(batch, heads, reach + 1, length)[:, :, 1:].reshape(scores.shape)
