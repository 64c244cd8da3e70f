"""A batch that is spread over devices: each does for its own samples what samples do not share.

Under ``jax.set_mesh(mesh)`` a batch belongs to the devices along the mesh's axis "data". Left to itself the compiler
would let all of them take part in every evaluation of every solve, until the slowest sample of the whole batch is done.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import export
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from deq_jax.trees import Batch

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


def on_each_device(function: Callable[..., Any], *rows: Any, out: Any = P(AXIS)) -> Any:
    """``function(*rows)``, each device for its own rows; what it closes over all of them have.

    ``out`` says how the results lie: with rows along their leading axis, if not otherwise.
    """
    return jax.shard_map(function, in_specs=P(AXIS), out_specs=out, axis_names={AXIS})(*rows)
