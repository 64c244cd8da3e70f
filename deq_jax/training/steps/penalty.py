"""What a training step can add to its loss to keep the cell contractive."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

import deq_jax

Penalty = Callable[[Callable[[Array], Array], Array, Key[Array, ""]], Float[Array, ""]]
"""(f, z, key) → mean over the batch; f is the cell at an injection, z where its solve stopped."""


def jacobian(f: Callable[[Array], Array], z: Array, key: Key[Array, ""]) -> Float[Array, ""]:
    """‖∂f/∂z‖_F² / (numbers in a state), estimated at an equilibrium that is held fixed."""
    return jnp.mean(deq_jax.jacobian_penalty(f, lax.stop_gradient(z), key)) / z[0].size


def contraction(f: Callable[[Array], Array], z: Array, key: Key[Array, ""]) -> Float[Array, ""]:
    """‖f(f(z)) − f(z)‖² / ‖f(z) − z‖². Nothing in it is drawn."""
    del key
    return jnp.mean(deq_jax.contraction_penalty(f, z))
