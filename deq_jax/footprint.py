"""How much memory a solve and its gradient take, said before anything is compiled."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from deq_jax.settings import whole_number
from deq_jax.states.per_sample import unmarked
from deq_jax.states.trees import accumulation_dtype, matched

OF_STATES = {"gpu": (2, 8), "cpu": (4, 10)}
"""Arrays of the size of the state for each row of Anderson's rings, and beside these, at the peak of a gradient.

On a GPU the backward loop takes the place that the forward loop has left; XLA's CPU backend gives each its own.
"""


def solve_bytes(f: Callable[..., PyTree], z0: PyTree, *args: Any, m: int = 5, platform: str | None = None) -> int:
    r"""Bytes that the gradient of ``fixed_point(f, z0, *args)`` by Anderson acceleration needs at its peak, about.

    $$4\,(r\,(m - 1) + s)\,\lvert z \rvert + \lvert \text{linearisation} \rvert$$

    with the numbers ``|z|`` in the states of the whole batch, four bytes each (eight, of float64), ``r = 2``,
    ``s = 8`` on a GPU, ``r = 4``, ``s = 10`` on a CPU, and what a vector-Jacobian product of ``f`` needs of its
    evaluation, as JAX counts it. Compilers keep less of the latter where they merge operations. What comes in and
    goes out, parameters and the rest of a network are not in it.

    Args:
        f: as of [`deq_jax.fixed_point`][]. It is traced, and nothing is computed.
        z0: where the solve starts; a pytree of floating-point arrays ``[batch, ...]``, or their forms, as
            ``jax.ShapeDtypeStruct``.
        *args: what ``f`` depends on besides; arrays or their forms.
        m: iterates that Anderson mixes.
        platform: ``"gpu"`` or ``"cpu"``; None for that of the first device, a CPU's for what is neither.

    Returns:
        The number of bytes; of several devices, that of all together.

    Raises:
        TypeError: ``f(z0, *args)`` has another structure, shape or dtype than ``z0``.
        ValueError: the leading axes of ``z0`` differ, ``m`` is not positive, or there is no such ``platform``.

    Examples:
        >>> import jax.numpy as jnp
        >>> z0 = jnp.zeros((100, 32, 32, 48))
        >>> print(f"{solve_bytes(lambda z: z / 2, z0, m=5, platform='gpu') / 1e6:.0f} MB")
        315 MB

    Source: this library's; measured by ``memory_analysis()`` of compiled programs.
    """
    name = jax.devices()[0].platform if platform is None else platform
    if platform is not None and platform not in OF_STATES:
        raise ValueError(f"platform must be gpu or cpu, or None for the first device's; got {platform!r}.")
    rows, others = OF_STATES.get(name, OF_STATES["cpu"])
    m = whole_number("m", m)

    def linearised(z0: PyTree, *args: Any) -> Any:
        given, z = matched(f, z0, *args)
        return jax.vjp(lambda z: given(z, *args), z)[1]

    kept = jax.eval_shape(linearised, z0, *unmarked(args))
    states = sum(leaf.size for leaf in jax.tree.leaves(z0)) * accumulation_dtype(z0).itemsize
    inputs = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(args))
    linearisation = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
    return (rows * (m - 1) + others) * states + max(linearisation - inputs, 0)
