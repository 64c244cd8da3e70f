"""The chapter's first cell, of vectors."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deq_jax.nn.layers.conv import SMALL, uniform_by_fan_in


class FeedForwardCell(nnx.Module):
    """The chapter's first cell, ``f(z, x) = σ(W z + U x + b)``.

    ``U x + b`` is the same in every evaluation: the compiler takes it out of the solver's loop.

    Args:
        in_features: features of the injection ``x``, ``[batch, in_features]``.
        features: features of the state ``z``, ``[batch, features]``.
        activation: ``σ``, element by element.
        kernel_init: draws ``W``; by default from N(0, 0.01²), small, as the chapter advises.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from; ``U`` and ``b`` are uniform in ±1/√in_features.

    Raises:
        ValueError: where the solve starts: the injection has no batch axis.

    Source: the chapter, "Deep networks and fixed point equations".
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        activation: Callable[[Array], Array] = jnp.tanh,
        kernel_init: nnx.Initializer = SMALL,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        uniform = uniform_by_fan_in(in_features)
        self.activation = activation
        self.W = nnx.Param(kernel_init(rngs.params(), (features, features), param_dtype))
        self.U = nnx.Param(uniform(rngs.params(), (in_features, features), param_dtype))
        self.b = nnx.Param(uniform(rngs.params(), (features,), param_dtype))

    def __call__(
        self, z: Float[Array, "batch features"], x: Float[Array, "batch in_features"]
    ) -> Float[Array, "batch features"]:
        """Evaluate ``f(z, x)``."""
        return self.activation(z @ self.W[...] + x @ self.U[...] + self.b[...][None]).astype(z.dtype)

    def initial_state(self, x: Float[Array, "batch in_features"]) -> Float[Array, "batch features"]:
        """Zeros, ``[batch, features]``: where the solve starts.

        Raises:
            ValueError: ``x`` is no ``[batch, in_features]``.
        """
        if x.ndim != 2:
            raise ValueError(
                f"FeedForwardCell takes an injection [batch, {self.U.shape[0]}], got {list(x.shape)}. "
                "One sample is a batch of 1, x[None]."
            )
        return jnp.zeros((x.shape[0], self.b.shape[0]), jnp.result_type(x))
