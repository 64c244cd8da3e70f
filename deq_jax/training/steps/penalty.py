"""What a training step can add to its loss to keep the cell contractive."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, PyTree

import deq_jax
from deq_jax.training.task import Function, Outcome

Penalty = Callable[[Function, PyTree, Key[Array, ""]], Float[Array, ""]]
"""(f, z, key) → mean over the batch; f is the cell at an injection, z where its solve stopped."""


def jacobian(f: Function, z: PyTree, key: Key[Array, ""]) -> Float[Array, ""]:
    """‖∂f/∂z‖_F² / (numbers in a state), estimated at an equilibrium that is held fixed."""
    size = sum(leaf[0].size for leaf in jax.tree.leaves(z))
    return jnp.mean(deq_jax.jacobian_penalty(f, lax.stop_gradient(z), key)) / size


def contraction(f: Function, z: PyTree, key: Key[Array, ""]) -> Float[Array, ""]:
    """‖f(f(z)) − f(z)‖² / ‖f(z) − z‖². Nothing in it is drawn."""
    del key
    return jnp.mean(deq_jax.contraction_penalty(f, z))


def penalised(penalty: Penalty, outcome: Outcome, key: Key[Array, ""]) -> Float[Array, ""]:
    """The sum of the penalties at all equilibria."""
    total = jnp.zeros(())
    for k, (f, solution) in enumerate(outcome.equilibria):
        total += penalty(f, solution.value, jax.random.fold_in(key, k) if k else key)
    return total
