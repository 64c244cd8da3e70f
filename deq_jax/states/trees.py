"""Per-sample algebra over pytrees: every leaf has the same leading batch axis, and samples never mix.

A state is any pytree of floating-point arrays. Solvers work on its flattened form, in which each leaf is a matrix
``[batch, n]``; the reshape is free, and keeps reductions and mixtures in the shapes that compilers do best.
Sums accumulate in float32 or better, whatever the dtype of the leaves.
"""

import functools
import math
import re
import traceback
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from deq_jax.states.coupled import whole_sum
from deq_jax.states.varying import varying_like

Matrices: TypeAlias = PyTree[Float[Array, "batch _n"]]
Batch: TypeAlias = Any
"""The number of samples: an int, or what ``jax.export`` has in its place where any number will do."""
Rows: TypeAlias = Int[Array, " width"]
"""The numbers of some of the samples."""


def batch_size(z: PyTree) -> Batch:
    """The length of the leading axis that all leaves of ``z`` share.

    Raises:
        TypeError: ``z`` has no leaves, or a leaf is not of a real floating-point dtype.
        ValueError: a leaf has no axes, or the leading axes differ.
    """
    check_floating(z)
    shapes = {f"z0{jax.tree_util.keystr(path)}": jnp.shape(leaf) for path, leaf in jax.tree.leaves_with_path(z)}
    if not all(shapes.values()) or len({shape[0] for shape in shapes.values()}) > 1:
        raise ValueError(
            f"the leaves of the state z0 must share their leading axis, the batch; got shapes {shapes}. "
            "Where they are one problem and no batch, say batched=False; else add a batch axis to each leaf."
        )
    return next(iter(shapes.values()))[0]


def check_floating(z: PyTree) -> None:
    """Raise a TypeError unless ``z`` is a pytree of floating-point arrays, one at least."""
    leaves = jax.tree.leaves_with_path(z)
    if not leaves:
        raise TypeError(f"the state z0 has no arrays in it: got {z!r}. Pass an array or a pytree of arrays.")
    for path, leaf in leaves:
        where = f"z0{jax.tree_util.keystr(path)}"
        if not (hasattr(leaf, "dtype") or isinstance(leaf, bool | int | float | complex)):
            raise TypeError(
                f"the state {where} must be an array or a pytree of arrays, got {type(leaf).__name__}: {leaf!r}. "
                "The function comes first, and then where to start: f, z0."
            )
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"the state z0 must be of floating-point arrays, but {where} is of dtype {jnp.result_type(leaf)}. "
                "Convert it, as by jnp.asarray(z0, jnp.float32), or pass it through args instead."
            )


def check_same_form(fz: PyTree, z: PyTree) -> None:
    """Raise a TypeError unless ``fz``, the output of ``f``, has the structure, shapes and dtypes of ``z``."""
    if jax.tree.structure(fz) != jax.tree.structure(z):  # type: ignore[operator]
        raise TypeError(
            f"f must return the structure that it is given: z0 is {jax.tree.structure(z)}, "
            f"f(z0) is {jax.tree.structure(fz)}." + _about_a_pair(fz, z)
        )
    for (path, out), leaf in zip(jax.tree.leaves_with_path(fz), jax.tree.leaves(z), strict=True):
        given, returned = (f"{jnp.result_type(a)}{list(jnp.shape(a))}" for a in (leaf, out))
        if given != returned:
            where = jax.tree_util.keystr(path)
            raise TypeError(
                f"f must return what it is given: z0{where} is {given}, f(z0){where} is {returned}. "
                "Make z0 like the output of f, or cast or project inside f."
            )


def _about_a_pair(fz: PyTree, z: PyTree) -> str:
    is_pair = isinstance(fz, tuple) and len(fz) == 2 and jax.tree.structure(fz[0]) == jax.tree.structure(z)  # type: ignore[operator]
    if not is_pair:
        return ""
    return (
        " Where it is a pair (z, aux), say has_aux=True to the fixed_point functions; give a solver lambda z: f(z)[0]."
    )


def matched(
    f: Callable[..., PyTree], z0: PyTree, *args: Any, batched: bool = True
) -> tuple[Callable[..., PyTree], PyTree]:
    """``f`` and ``z0`` such that ``f(z0, *args)`` is of ``z0``'s type to the last detail, as a loop wants it.

    Weak types are gone, which ``f`` would make ordinary ones. Within ``jax.shard_map`` both differ from device to
    device wherever one leaf of either does.

    Raises:
        TypeError: ``f(z0, *args)`` has another structure, shape or dtype than ``z0``, or ``z0`` is not floating-point.
        ValueError: the leading axes of ``z0`` differ, where it is ``batched``.
    """
    if not callable(f):
        raise TypeError(
            f"f must be a function z -> z, got {type(f).__name__}. It comes first, and then where to start: f, z0."
        )
    if batched:
        batch_size(z0)
    else:
        check_floating(z0)
    z0 = jax.tree.map(lambda leaf: lax.convert_element_type(jnp.asarray(leaf), jnp.result_type(leaf)), z0)
    # A new function, since JAX may remember what the same one has closed over before.
    form = jax.eval_shape(saying_what_it_is_given(f, z0), z0, *args)
    check_same_form(form, z0)
    z0 = varying_like(z0, (form, z0))
    return (lambda z, *args: varying_like(f(z, *args), z0)), z0


def saying_what_it_is_given(f: Callable[..., PyTree], z0: PyTree) -> Callable[..., PyTree]:
    """``f``, as a new function that says what it was given where an error in it may be about that."""

    def traced(*arguments: Any) -> PyTree:
        try:
            return f(*arguments)
        except Exception as error:
            if _may_be_about_form(error):
                forms = jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", z0)
                error.add_note(
                    f"deq_jax was evaluating f at a state z of the form of z0: {forms}. Where f wants another, give it "
                    "as z0; a cell in nn.DEQ says it by a method initial_state(x)."
                )
            raise

    return traced


def _may_be_about_form(error: Exception) -> bool:
    """Whether an array library has raised it, as one of the kind and in the words that those have for forms."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    library = frame.f_globals.get("__name__", "").partition(".")[0]
    # Subclasses are about traced values, but for this one of Flax Linen's.
    kinds = ("TypeError", "ValueError", "IndexError", "AttributeError", "ScopeParamShapeError")
    words = r"(?i)shape|size|dimension|dtype|ax[ei]s|index|indices|structure|attribute"
    is_of_kind = type(error).__name__ in kinds and re.search(words, str(error)) is not None
    return is_of_kind and library in ("jax", "numpy", "opt_einsum", "flax")


def flatten_samples(z: PyTree) -> Matrices:
    """Each leaf ``[batch, ...]`` as a matrix ``[batch, n]``."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).reshape(leaf.shape[0], math.prod(leaf.shape[1:])), z)


def flatten_function(f: Callable[[PyTree], PyTree], z: PyTree) -> Callable[[Matrices], Matrices]:
    """``f`` on flattened states, given the form ``z`` of the states that it takes."""
    return lambda flat: flatten_samples(f(restore_samples(flat, z)))


def restore_samples(flat: Matrices, z: PyTree) -> PyTree:
    """The inverse of ``flatten_samples``, given a ``z`` of the shape to restore."""
    return jax.tree.map(lambda matrix, leaf: matrix.reshape(leaf.shape), flat, z)


def accumulation_dtype(z: PyTree) -> Any:
    """The dtype for sums over ``z``: that of its widest leaf, and at least float32."""
    dtypes = [jnp.dtype(jnp.float32), *(jnp.result_type(leaf) for leaf in jax.tree.leaves(z))]
    return max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits)  # strict promotion would refuse to choose


def sample_dot(a: Matrices, b: Matrices) -> Float[Array, " batch"]:
    """Per-sample inner product ``⟨a, b⟩``, summed over all leaves."""
    dtype = accumulation_dtype((a, b))
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return whole_sum(functools.reduce(jnp.add, [jnp.sum(x.astype(dtype) * y.astype(dtype), axis=1) for x, y in pairs]))


def sample_where(mask: Bool[Array, " batch"], a: Matrices, b: Matrices) -> Matrices:
    """``a`` for the samples in ``mask``, ``b`` for the others; a NaN on the side not taken has no effect."""
    return jax.tree.map(lambda x, y: jnp.where(mask[:, None], x, y), a, b)


def sample_scale(a: Matrices, factor: Float[Array, " batch"]) -> Matrices:
    """Each sample of ``a`` times its ``factor``, in the dtypes of ``a``."""
    return jax.tree.map(lambda leaf: (leaf.astype(factor.dtype) * factor[:, None]).astype(leaf.dtype), a)


def sample_difference(a: Matrices, b: Matrices) -> Matrices:
    """``a − b``, in the dtype that norms and inner products are computed in."""
    dtype = accumulation_dtype((a, b))
    return jax.tree.map(lambda x, y: x.astype(dtype) - y.astype(dtype), a, b)


def draw(sampler: Callable[..., Array], key: Key[Array, ""], z: PyTree) -> PyTree:
    """Random numbers of the form of ``z``, each leaf from a key of its own; on all devices the same ones."""
    leaves, structure = jax.tree.flatten(z)
    keys = jax.random.split(key, len(leaves))
    drawn = [sampler(k, jnp.shape(leaf), jnp.result_type(leaf)) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.map(varying_like, jax.tree.unflatten(structure, drawn), z)
