"""Within ``jax.shard_map``: the mesh axes over which an array differs from device to device.

Outside there are none, and with ``check_vma=False`` none that JAX tells of.
"""

import jax
from jax import lax
from jaxtyping import Array, PyTree


def varying_axes(tree: PyTree) -> frozenset[str]:
    """The mesh axes over which any leaf differs."""
    types = [leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf) for leaf in jax.tree.leaves(tree)]
    kinds = [getattr(kind, "manual_axis_type", None) for kind in types]
    return frozenset().union(*[getattr(kind, "varying", ()) for kind in kinds])


def varying_over(axes: frozenset[str], tree: PyTree) -> PyTree:
    """``tree``, every leaf of which is said to differ over ``axes``, too. Its derivative sums over them."""

    def cast(leaf: Array) -> Array:
        missing = axes - varying_axes(leaf)
        return lax.pcast(leaf, tuple(missing), to="varying") if missing else leaf

    return jax.tree.map(cast, tree) if axes else tree


def varying_like(tree: PyTree, like: PyTree) -> PyTree:
    """``tree``, said to differ wherever ``like`` does."""
    return varying_over(varying_axes(like), tree)
