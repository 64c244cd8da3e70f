"""Evaluating a cell in fewer bits than its state has: few where most of the work is, all where there are sums."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PyTree


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """The floating-point arrays of ``tree`` in ``dtype``, and whatever else it holds as it is."""

    def in_dtype(leaf: Any) -> Any:
        return jnp.asarray(leaf, dtype) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf

    return jax.tree.map(in_dtype, tree)


def evaluated_in(dtype: DTypeLike | None, f: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """``f(z, *args)`` with all that it is given in ``dtype``, and its result in the dtypes of ``z``; None: ``f``.

    Gradients come back in the dtypes of what was given, so that sums over samples and devices are made in these.
    """
    if dtype is None:
        return f

    def evaluate(z: PyTree, *args: Any) -> PyTree:
        fz = f(cast(z, dtype), *cast(args, dtype))
        if jax.tree.structure(fz) != jax.tree.structure(z):  # type: ignore[operator]
            return fz  # which is refused where states are compared
        return jax.tree.map(lambda out, leaf: out.astype(jnp.result_type(leaf)), fz, z)

    return evaluate


def check_dtype(dtype: Any) -> Any:
    """``dtype`` itself, or a TypeError where it is not None and no floating-point one."""
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype must be None or a floating-point dtype, such as jnp.bfloat16; got {dtype!r}.")
    return dtype
