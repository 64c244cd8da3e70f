"""How large samples are: norms at any scale, and residuals in relation to them."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from deq_jax.states.coupled import axes_of_a_sample, whole_max, whole_sum
from deq_jax.states.trees import Matrices, accumulation_dtype, sample_difference, sample_dot


def sample_norm(a: Matrices) -> Float[Array, " batch"]:
    """Per-sample Euclidean norm over all leaves, at any scale: its square may leave the dtype's range."""
    return sample_norms(a)[0]


def sample_norms(*several: Matrices) -> tuple[Float[Array, " batch"], ...]:
    """The norm of each; on a CPU another pass is made for all of them, where one needs it, and elsewhere none."""
    on_cpu, elsewhere = _norms_in_two_passes, _norms_in_one_pass
    if axes_of_a_sample():  # new functions: of the same ones JAX remembers what they were without
        on_cpu, elsewhere = functools.partial(on_cpu), functools.partial(elsewhere)
    return lax.platform_dependent(*several, cpu=on_cpu, default=elsewhere)


def _norms_in_two_passes(*several: Matrices) -> tuple[Float[Array, " batch"], ...]:
    squares = [sample_dot(a, a) for a in several]
    are_exact = [_is_exact(square) for square in squares]

    def rescaled() -> list[Float[Array, " batch"]]:
        return [_rescaled(*parts) for parts in zip(several, squares, are_exact, strict=True)]

    # Only a batch that needs it pays for another pass.
    all_exact = functools.reduce(jnp.logical_and, [jnp.all(is_exact) for is_exact in are_exact])
    return tuple(lax.cond(all_exact, lambda: [jnp.sqrt(square) for square in squares], rescaled))


def _rescaled(a: Matrices, square: Float[Array, " batch"], is_exact: Bool[Array, " batch"]) -> Float[Array, " batch"]:
    size, tiny = sample_size(a), jnp.finfo(square.dtype).tiny
    # Compilers divide by multiplying with the reciprocal, which must not be so small that it is flushed to zero.
    unit = jnp.where((size > 0) & jnp.isfinite(size), jnp.clip(size, tiny, 0.5 / tiny), 1)
    in_units = jax.tree.map(lambda leaf: leaf.astype(square.dtype) / unit[:, None], a)
    # The others keep what they have to the bit, whatever their neighbours need.
    return jnp.where(is_exact, jnp.sqrt(square), unit * jnp.sqrt(sample_dot(in_units, in_units)))


def _norms_in_one_pass(*several: Matrices) -> tuple[Float[Array, " batch"], ...]:
    """By sums of squares in three units at once: a kernel that reads its input has them for nothing.

    Source: Blue, "A portable Fortran program to find the Euclidean norm of a vector", 1978.
    """
    dtype = accumulation_dtype(several)
    far = 2.0 ** (jnp.finfo(dtype).maxexp * 5 // 8)
    units = (1 / far, 1.0, far)

    def norm(small: Array, square: Array, large: Array) -> Float[Array, " batch"]:
        by_range = jnp.where(jnp.isfinite(square), jnp.sqrt(large) / far, jnp.sqrt(small) * far)
        return jnp.where(_is_exact(square), jnp.sqrt(square), by_range)

    by_leaf = [
        _sums([jnp.square(leaf.astype(dtype) * unit) for leaf in leaves for unit in units])
        for leaves in zip(*map(jax.tree.leaves, several), strict=True)
    ]
    squares = [whole_sum(functools.reduce(jnp.add, parts)) for parts in zip(*by_leaf, strict=True)]
    return tuple(norm(*squares[i : i + len(units)]) for i in range(0, len(squares), len(units)))


def _sums(terms: list[Float[Array, "batch _n"]]) -> list[Float[Array, " batch"]]:
    """The sum of each over its samples, all of them by one operation: an accelerator would start a kernel for each."""
    if len({term.shape for term in terms}) > 1:
        return [jnp.sum(term, axis=1) for term in terms]
    zeros = [jnp.zeros((), term.dtype) for term in terms]
    return list(lax.reduce(terms, zeros, lambda a, b: [lax.add(x, y) for x, y in zip(a, b, strict=True)], (1,)))


def _is_exact(square: Float[Array, " batch"]) -> Bool[Array, " batch"]:
    limits = jnp.finfo(square.dtype)
    return (square > limits.tiny / limits.eps) & jnp.isfinite(square)


def sample_size(a: Matrices) -> Float[Array, " batch"]:
    """Per-sample largest absolute value over all leaves."""
    dtype = accumulation_dtype(a)
    sizes = [jnp.max(jnp.abs(leaf.astype(dtype)), axis=1, initial=0) for leaf in jax.tree.leaves(a)]
    return whole_max(functools.reduce(jnp.maximum, sizes))


def sample_unit(a: Matrices) -> Float[Array, " batch"]:
    """A power of two near each sample's largest number, to scale by without rounding; 1 for zero. No derivative."""
    size = lax.stop_gradient(sample_size(a))
    usable = (size > 0) & jnp.isfinite(size)
    exponent = jnp.clip(jnp.round(jnp.log2(jnp.where(usable, size, 1))), -120, 120).astype(jnp.int32)
    return jnp.ldexp(jnp.ones_like(size), exponent)


def relative_residual(fz: Matrices, z: Matrices) -> Float[Array, " batch"]:
    """Per-sample relative residual, ``‖f(z) − z‖₂ / ‖f(z)‖₂``.

    Zero where both norms are zero, infinite where only ``‖f(z)‖₂`` is, and NaN where ``z`` or ``f(z)`` is not finite,
    or so near the largest number that its norm is not.
    """
    return in_proportion(*sample_norms(sample_difference(fz, z), fz))


def in_proportion(step: Float[Array, " batch"], size: Float[Array, " batch"]) -> Float[Array, " batch"]:
    """The relative residual of a sample whose ``‖f(z) − z‖₂`` is ``step`` and whose ``‖f(z)‖₂`` is ``size``."""
    ratio = step / jnp.where(size == 0, 1, size)
    residual = jnp.where(size == 0, jnp.where(step == 0, 0, jnp.inf), ratio)
    return jnp.where(jnp.isfinite(step) & jnp.isfinite(size), residual, jnp.nan)
