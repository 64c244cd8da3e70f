"""What a segment remembers of those before it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

State = Float[Array, "batch length features"]


class Memory(NamedTuple):
    """The positions before a segment, ``[batch, memory, features]``, the last one right before it; without gradients.

    Source: Dai et al., "Transformer-XL: attentive language models beyond a fixed-length context", 2019; of equilibria,
    Bai et al., "Deep equilibrium models", 2019.
    """

    z: Float[Array, "batch memory features"]
    """Their states."""
    inputs: Float[Array, "batch memory features"]
    """What was injected into them."""
    is_there: Bool[Array, "batch memory"]
    """Which of them there are: none where a text begins."""

    @classmethod
    def empty(cls, batch: int, length: int, features: int, dtype: DTypeLike = jnp.float32) -> "Memory":
        """That of a text's beginning: so many places, and nothing in them."""
        nothing = jnp.zeros((batch, length, features), dtype)
        return cls(nothing, nothing, jnp.zeros((batch, length), bool))

    def followed_by(self, z: State, inputs: State) -> "Memory":
        """The last so many positions behind the segment of these states and inputs ``[batch, length, features]``."""
        segment = Memory(*lax.stop_gradient((z, inputs)), jnp.ones(z.shape[:2], bool))
        length = self.is_there.shape[1]
        return jax.tree.map(
            lambda old, new: jnp.concatenate([old, new], 1)[:, new.shape[1] :][:, :length], self, segment
        )
