"""A model as arrays and as a function of them: what is trained, what is carried along, and what stays as it was."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int, PyTree

from deq_jax.training.errors import UserError


def arrays_of(model: nnx.Module) -> tuple[PyTree, PyTree]:
    """Its parameters and its batch statistics."""
    _, *states = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    params, batch_stats, _ = nnx.as_pure(states)
    return params, batch_stats


def opened(model: nnx.Module, *, training: bool) -> Callable[..., Any]:
    """The function (params, batch_stats, step=None) → the model with these, set to training or to evaluation.

    Whatever else the model holds is as it was made, but streams of random numbers, which every step has of its own, so
    that a resumed run draws what an uninterrupted one would have drawn. The model itself stays as it is.
    """
    copy = nnx.clone(model)
    copy.train() if training else copy.eval()
    graph, *states = nnx.split(copy, nnx.Param, nnx.BatchStat, ...)
    *_, rest = nnx.as_pure(states)

    def with_arrays(params: PyTree, batch_stats: PyTree, step: Int[Array, ""] | None = None) -> Any:
        return nnx.merge(graph, params, batch_stats, rest if step is None else _drawn_anew(rest, step))

    return with_arrays


def require_unchanged(model: nnx.Module, call: Callable[[], Any]) -> Any:
    """What the call returns.

    Raises:
        UserError: it changed something that a run does not carry from step to step.
    """
    before = _constants(model)
    returned = call()
    after = _constants(model)
    changed = [name for name in sorted(before.keys() | after.keys()) if before.get(name) is not after.get(name)]
    if changed:
        raise UserError(
            f"the loss changes {', '.join(changed)} in the model, which a run would lose: from step to step it carries "
            f"parameters and batch statistics.\nMake it an nnx.BatchStat, or leave it as it is."
        )
    return returned


def _constants(model: nnx.Module) -> dict[str, Any]:
    others = nnx.Not(nnx.Any(nnx.Param, nnx.BatchStat, nnx.RngState, nnx.Intermediate))
    leaves = jax.tree.leaves_with_path(nnx.as_pure(nnx.state(model, others)))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _drawn_anew(rest: PyTree, step: Int[Array, ""]) -> PyTree:
    def drawn(leaf: Array) -> Array:
        return jax.random.fold_in(leaf, step) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf

    return jax.tree.map(drawn, rest)
