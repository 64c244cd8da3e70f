"""A batch that is spread over devices: each does for its own samples what samples do not share.

Under ``jax.set_mesh(mesh)`` a batch belongs to the devices along the mesh's axis "data". Left to itself the compiler
would let all of them take part in every evaluation of every solve, until the slowest sample of the whole batch is done.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import export, lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from deq_jax.states.trees import Batch

AXIS = "data"
"""The mesh axis along which samples lie."""


def devices_of(batch: Batch) -> int:
    """How many devices share a batch of this size evenly; 1 where no mesh is set, or its axis is already taken apart.

    Within ``jax.shard_map`` over the axis a batch is one device's own.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if export.is_symbolic_dim(batch) or kinds.get(AXIS) != AxisType.Auto:
        return 1
    devices = mesh.shape[AXIS]
    return 1 if batch % devices else devices


def on_each_device(function: Callable[..., Any], *rows: Any, out: Any) -> Any:
    """``function(*rows)``, each device for its own rows; what it closes over all of them have. ``out``: how it lies."""
    return jax.shard_map(function, in_specs=P(AXIS), out_specs=out, axis_names={AXIS})(*rows)


def on_all_devices(tree: PyTree) -> PyTree:
    """``tree``, whose leaves each device then has in full. Under a mesh only."""
    return lax.with_sharding_constraint(tree, P())
