"""Arrays that a CPU's compiler is kept from computing anew in each place that reads them."""

from typing import Any

import jax
from jax import lax


def made_once[Arrays](arrays: Arrays) -> Arrays:
    """The same, as arrays of their own on a CPU; elsewhere a compiler fuses better than we could tell it to."""
    leaves, structure = jax.tree.flatten(arrays)
    kept: Any = lax.platform_dependent(
        *leaves, cpu=lambda *leaves: lax.optimization_barrier(list(leaves)), default=lambda *leaves: list(leaves)
    )
    return jax.tree.unflatten(structure, kept)
