"""Where the solve of a layer starts."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def initial_state(cell: Any, x: PyTree) -> PyTree:
    """What the cell says by ``initial_state(x)``, or else zeros like the injection ``x``.

    Raises:
        TypeError: ``x`` holds something that no state can be like, and the cell has no ``initial_state``.
    """
    if hasattr(cell, "initial_state"):
        return cell.initial_state(x)
    for path, leaf in jax.tree.leaves_with_path(x):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"the state starts as zeros like x, of floating-point arrays, but x{jax.tree_util.keystr(path)} is of "
                f"dtype {jnp.result_type(leaf)}. Give the cell a method initial_state(x), or give z0 to the layer."
            )
    return jax.tree.map(jnp.zeros_like, x)
