"""How contractive a cell is at a state: its Jacobian's spectral radius, and two penalties that keep it small.

They use vector-Jacobian products at most, so they take every ``f`` that [`deq_jax.fixed_point`][] can differentiate.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, PyTree

from deq_jax.settings import whole_number
from deq_jax.states.norms import sample_norm
from deq_jax.states.single import batch_of_one
from deq_jax.states.trees import (
    Matrices,
    accumulation_dtype,
    draw,
    flatten_samples,
    matched,
    restore_samples,
    sample_difference,
    sample_dot,
    sample_scale,
)


def spectral_radius(
    f: Callable[[PyTree], PyTree], z: PyTree, key: Key[Array, ""], iterations: int = 50, *, batched: bool = True
) -> Float[Array, "*batch"]:
    """Estimate the spectral radius of ``∂f/∂z`` at ``z``, per sample, by power iteration.

    Below 1, forward iteration converges near an equilibrium ``z``, at that rate. With ``v ← Jᵀv / ‖Jᵀv‖``, the estimate
    is the geometric mean of ``‖Jᵀv‖`` over the second half of the iterations: where the dominant eigenvalues are a
    complex pair single factors swing, and their mean does not. It can be off by some per cent where many eigenvalues
    are about as large as the dominant one, as in a random matrix; 500 iterations are then better. Of a strongly
    non-normal Jacobian it is far too large, since the powers of that grow long before they fall.

    Args:
        f: maps a state to a state of the same form, each sample on its own.
        z: where the Jacobian is taken, usually an equilibrium; a pytree of floating-point arrays ``[batch, ...]``.
        key: draws the first ``v``.
        iterations: vector-Jacobian products to spend, at least 2.
        batched: False where ``z`` is one problem, of leaves of any shapes, and no batch; the result is then one number.

    Returns:
        The estimates ``[batch]``, not differentiable.

    Raises:
        TypeError: ``f(z)`` has another form than ``z``, or ``z`` is not floating-point.
        ValueError: the leading axes of ``z`` differ, or ``iterations`` is below 2.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> print(spectral_radius(lambda z: 0.5 * z, jnp.ones((2, 3)), jax.random.key(0)).round(3))
        [0.5 0.5]

    Source: Golub and Van Loan, "Matrix computations", 4th edition, section 7.3, power iterations.
    """
    if not batched:
        return spectral_radius(*batch_of_one(f, z), key, iterations)[0]
    iterations = whole_number("iterations", iterations, minimum=2)
    f, z = matched(f, z)
    transposed = _transposed_jacobian(f, z)

    def normalised(v: PyTree) -> tuple[PyTree, Float[Array, " batch"]]:
        flat = flatten_samples(v)
        norm = sample_norm(flat)
        divisor = jnp.where(norm > 0, norm, 1)[:, None]
        return restore_samples(jax.tree.map(lambda leaf: (leaf / divisor).astype(leaf.dtype), flat), v), norm

    def step(v: PyTree, _: None) -> tuple[PyTree, Float[Array, " batch"]]:
        return normalised(transposed(v))

    _, growth = lax.scan(step, normalised(draw(jax.random.normal, key, z))[0], length=iterations)
    return lax.stop_gradient(jnp.exp(jnp.mean(jnp.log(growth[iterations // 2 :]), axis=0)))


def jacobian_penalty(
    f: Callable[[PyTree], PyTree], z: PyTree, key: Key[Array, ""], samples: int = 1, *, batched: bool = True
) -> Float[Array, "*batch"]:
    """Estimate ``‖∂f/∂z‖_F²`` at ``z``, per sample, by Hutchinson's method; differentiable.

    The mean of ``‖Jᵀε‖₂²`` over draws of signs ``ε``, which is unbiased. Added to a loss, with a weight and usually
    divided by the size of a state, it keeps the cell contractive and the solves short. Gradients reach ``z`` and
    whatever ``f`` closes over.

    Args:
        f: maps a state to a state of the same form, each sample on its own.
        z: where the Jacobian is taken, usually an equilibrium; a pytree of floating-point arrays ``[batch, ...]``.
        key: draws the signs.
        samples: draws to average, at least 1; each costs a vector-Jacobian product.
        batched: False where ``z`` is one problem, of leaves of any shapes, and no batch; the result is then one number.

    Returns:
        The estimates ``[batch]``.

    Raises:
        TypeError: ``f(z)`` has another form than ``z``, or ``z`` is not floating-point.
        ValueError: the leading axes of ``z`` differ, or ``samples`` is not positive.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> print(jacobian_penalty(lambda z: 0.5 * z, jnp.ones((2, 3)), jax.random.key(0)))
        [0.75 0.75]

    Source: Bai et al., "Stabilizing equilibrium models by Jacobian regularization", 2021, section 4.
    """
    if not batched:
        return jacobian_penalty(*batch_of_one(f, z), key, samples)[0]
    samples = whole_number("samples", samples)
    f, z = matched(f, z)
    transposed = _transposed_jacobian(f, z)

    def estimate(key: Key[Array, ""]) -> Float[Array, " batch"]:
        product = flatten_samples(transposed(draw(jax.random.rademacher, key, z)))
        return sample_dot(product, product)

    return jnp.mean(jax.vmap(estimate)(jax.random.split(key, samples)), axis=0)


def contraction_penalty(f: Callable[[PyTree], PyTree], z: PyTree, *, batched: bool = True) -> Float[Array, "*batch"]:
    """Measure ``‖f(f(z)) − f(z)‖² / ‖f(z) − z‖²``, what one evaluation leaves of the residual, per sample.

    Near an equilibrium it is ``‖J r‖² / ‖r‖²`` of the residual ``r = f(z) − z``. Plain iteration leaves ``r`` in the
    directions that contract least, and so does an accelerated solve that is cut off after a few evaluations: there this
    sees what ``‖J‖_F²``, the sum over all directions, hardly does, since few of them make a cell stiff. Acceleration
    that is let go on takes just these out first, and then this is small, however stiff the cell.

    Added to a loss, with a weight, it keeps the cell contractive and the solves short. Its gradient is that of the
    numerator's at fixed ``z`` and ``f(z)``: it reaches whatever ``f`` closes over, and not ``z``.

    Where the residual is down to rounding it has no direction, and the penalty fades: ``‖r‖`` counts as at least 8
    units of rounding of ``f(z)``, in float32 a relative residual of 1e-6, and in bfloat16 of 6e-2.

    Args:
        f: maps a state to a state of the same form, each sample on its own; pure, as it is evaluated twice.
        z: where a solve has stopped; a pytree of floating-point arrays ``[batch, ...]``.
        batched: False where ``z`` is one problem, of leaves of any shapes, and no batch; the result is then one number.

    Returns:
        The squared factors ``[batch]``: 0 where ``z`` is an equilibrium, above 1 where plain iteration moves away from
        it, not finite where ``f`` is not.

    Raises:
        TypeError: ``f(z)`` has another form than ``z``, or ``z`` is not floating-point.
        ValueError: the leading axes of ``z`` differ.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(contraction_penalty(lambda z: 0.5 * z + 1, jnp.zeros((2, 3))).round(3))
        [0.25 0.25]

    Source: this library's own; the factor is that of the power iteration which plain iteration is near an equilibrium.
    """
    if not batched:
        return contraction_penalty(*batch_of_one(f, z))[0]
    f, z = matched(f, z)
    z = lax.stop_gradient(z)
    fz = f(z)
    held = lax.stop_gradient(fz)
    ffz = f(held)
    z, fz, held, ffz = (flatten_samples(tree) for tree in (z, fz, held, ffz))
    residual = jnp.maximum(sample_norm(sample_difference(held, z)), 8 * sample_norm(_rounding(held)))
    left = sample_scale(sample_difference(ffz, fz), 1 / jnp.where(residual > 0, residual, 1))
    return sample_dot(left, left)


def _rounding(a: Matrices) -> Matrices:
    """One unit of rounding of every number, in the dtype that norms are computed in."""
    dtype = accumulation_dtype(a)
    return jax.tree.map(lambda leaf: leaf.astype(dtype) * jnp.finfo(leaf.dtype).eps, a)


def _transposed_jacobian(f: Callable[[PyTree], PyTree], z: PyTree) -> Callable[[PyTree], PyTree]:
    _, pull_back = jax.vjp(f, z)
    return lambda v: pull_back(v)[0]
