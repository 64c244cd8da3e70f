"""The equilibrium problem of a monotone network, as solvers by splitting take it."""

import dataclasses
import functools
from collections.abc import Callable

import jax
from jaxtyping import PyTree

from deq_jax.operators.operator import Held


@functools.partial(jax.tree_util.register_dataclass, data_fields=["W", "b"], meta_fields=["prox"])
@dataclasses.dataclass(frozen=True)
class MonotoneMap:
    """``f(z) = prox(W z + b)``, a function that keeps its parts: any solver takes it, and those by splitting need it.

    It has exactly one fixed point, whatever the weights, since ``I − W`` is strongly monotone and ``prox`` a proximal
    operator.

    Args:
        W: an operator on states ``[batch, ...]``, such as a [`deq_jax.operators.Dense`][].
        b: like a state, the part of the argument that does not depend on it.
        prox: the projection onto a closed convex cone that is a product of half-lines, lines and points, as ``relu``
            is. That of ``alpha`` times its indicator is the same for every ``alpha``, which splitting relies on.

    Raises:
        TypeError: from the solver, where ``W`` and ``b`` are of different forms.

    Examples:
        >>> import jax.numpy as jnp, deq_jax
        >>> from deq_jax.operators import Dense, MonotoneMap
        >>> f = MonotoneMap(Dense(jnp.array([[-1.0, 5.0], [-5.0, -1.0]]), m=2.0), jnp.ones((1, 2)))
        >>> sol = deq_jax.peaceman_rachford(f, jnp.zeros((1, 2)), tol=1e-4)
        >>> print(f(sol.value).round(2), sol.status)
        [[0.5 0. ]] [0]

    Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, theorem 1.
    """

    W: Held
    b: PyTree
    prox: Callable[[PyTree], PyTree] = jax.nn.relu

    def __call__(self, z: PyTree) -> PyTree:
        """``prox(W z + b)``."""
        return self.prox(self.argument(z))

    def argument(self, z: PyTree) -> PyTree:
        """``W z + b``."""
        return jax.tree.map(lambda wz, b: wz + b, self.W(z), self.b)
