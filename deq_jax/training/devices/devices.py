"""The devices of a run: parameters on each of them, the samples of a batch spread over them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from deq_jax.states.spread import AXIS
from deq_jax.training.errors import UserError


class Devices(NamedTuple):
    """All devices of all processes of a run, one or many, in the same order in each."""

    mesh: Mesh

    @property
    def number(self) -> int:
        """How many."""
        return self.mesh.size

    @property
    def share(self) -> slice:
        """Which of so many equal parts of a batch are this process's: first, end, and of how many."""
        own = [i for i, device in enumerate(self.mesh.devices) if device.process_index == jax.process_index()]
        return slice(own[0], own[-1] + 1, self.number)

    def described(self, batch_size: int) -> str:
        """Who has what, in a line."""
        kind, processes = self.mesh.devices[0].device_kind, jax.process_count()
        among = f", in {processes} processes" if processes > 1 else ""
        return (
            f"{self.number} devices{among} ({kind}): {batch_size // self.number} of {batch_size} samples a step each."
        )

    def everywhere(self, tree: PyTree) -> PyTree:
        """``tree``, the same on every process, on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, P()))

    def spread(self, rows: PyTree) -> PyTree:
        """A batch's arrays, of which each process gives its share, over the devices along the leading axis."""
        sharding = NamedSharding(self.mesh, P(AXIS))
        return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), rows)

    def compiled(
        self, function: Callable[..., Any], *arguments: Any, donate_argnums: tuple[int, ...] = ()
    ) -> Callable[..., Any]:
        """``function`` compiled for arguments that lie so, its results everywhere; it refuses others."""
        everywhere = NamedSharding(self.mesh, P())
        with jax.set_mesh(self.mesh):
            jitted = jax.jit(function, donate_argnums=donate_argnums, out_shardings=everywhere)
            return jitted.lower(*arguments).compile()

    def jitted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` for arguments that lie so, its results everywhere; compiled for each form that they have."""
        jitted = jax.jit(function, out_shardings=NamedSharding(self.mesh, P()))

        def call(*arguments: Any) -> Any:
            with jax.set_mesh(self.mesh):
                return jitted(*arguments)

        return call

    def even(self, batch_size: int) -> int:
        """The least number of samples that falls evenly on them, and is no smaller."""
        return -(-batch_size // self.number) * self.number


def all_devices() -> Devices:
    """All there are, for batches that are made to fall evenly on them."""
    return Devices(Mesh(np.array(jax.devices()), (AXIS,)))


def devices_for(batch_size: int, number: int | None = None) -> Devices:
    """The first ``number`` devices, or all there are.

    Raises:
        UserError: there are fewer, other processes hold a part of them, or the batch does not fall evenly on them.
    """
    there = jax.devices()
    if number is not None and number > len(there):
        raise UserError(
            f"devices is {number}, but JAX finds {len(there)}: {there[0].device_kind}.\n"
            f"Leave devices out to take all that there are."
        )
    if number is not None and number < len(there) and jax.process_count() > 1:
        raise UserError(
            f"devices is {number}, but {jax.process_count()} processes hold {len(there)}, and each must take part.\n"
            f"Leave devices out, or start fewer processes."
        )
    count = len(there) if number is None else number
    if batch_size % count:
        below, above = batch_size // count * count, -(-batch_size // count) * count
        fewer = max(n for n in range(1, count) if batch_size % n == 0)
        sizes = " or ".join(str(size) for size in (below, above) if size)
        alone = "" if jax.process_count() > 1 else f", or devices {fewer} with this one"
        raise UserError(
            f"batch_size {batch_size} does not fall evenly on {count} devices.\nTake batch_size {sizes}{alone}."
        )
    return Devices(Mesh(np.array(there[:count]), (AXIS,)))
