"""By how much the logits of a monotone classifier can change, and which of its answers no small change can alter.

The equilibrium of ``z = prox(W z + U x + b)`` changes by at most ``‖U‖/m`` times what ``x`` does, where ``I − W`` is
monotone by ``m``.

Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020; Pabbaraju, Winston and Kolter, "Estimating
Lipschitz constants of monotone deep equilibrium models", 2021, theorem 1.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from deq_jax.nn.classifiers.image_classifier import ImageClassifier
from deq_jax.operators.matrices import norm_bound
from deq_jax.solution import Solution
from deq_jax.states.norms import sample_norm
from deq_jax.states.trees import flatten_samples


def lipschitz_bound(model: ImageClassifier) -> Float[Array, ""]:
    """An upper bound of ``‖logits(x) − logits(x')‖₂ / ‖x − x'‖₂``, ``‖W_out‖ ‖U‖ / m``.

    Args:
        model: a classifier of images ``[batch, height, width, channels]`` in three parts:
            [`deq_jax.nn.Standardised`][], a [`deq_jax.nn.DEQ`][] of a monotone cell, and [`deq_jax.nn.LinearHead`][].

    Returns:
        A number; of the images as the model takes them, 0 to 1.

    Raises:
        TypeError: it is another model, of which nothing is certain.

    Source: Pabbaraju, Winston and Kolter, "Estimating Lipschitz constants of monotone deep equilibrium models", 2021.
    """
    return norm_bound(model.head.matrix()) * _of_state(model)


def certified_radius(
    model: ImageClassifier, logits: Float[Array, "batch classes"], solution: Solution
) -> Float[Array, " batch"]:
    """How far, in the Euclidean norm, each image can be changed at least before its class changes; 0: nothing certain.

    Class ``i`` stays before ``j`` until ``x`` has moved by ``(logitᵢ − logitⱼ) / (‖wᵢ − wⱼ‖ ‖U‖ / m)``, with ``w`` the
    columns of the head. What the solve has left open is taken off: the distance to the equilibrium is at most
    ``(1 + L)/m ‖f(z) − z‖``, ``L = ‖I − W‖``.

    Args:
        model: as in [`deq_jax.nn.lipschitz_bound`][].
        logits: what it says, ``[batch, classes]``.
        solution: the equilibria that they rest on.

    Returns:
        A radius for every image, ``[batch]``.

    Raises:
        TypeError: it is another model, of which nothing is certain.

    Source: as of `lipschitz_bound`; the distance is Pang's, "A posteriori error bounds for the linearly-constrained
    variational inequality problem", 1987.
    """
    per_change = _of_state(model)
    W = model.cell.operator()
    size = sample_norm(flatten_samples(solution.value))
    step = solution.residual * size / jnp.maximum(1 - solution.residual, jnp.finfo(size.dtype).eps)
    open_distance = (1 + W.norm()) / W.m * step
    columns = model.head.matrix()
    best = jnp.argmax(logits, axis=1)
    apart = jnp.linalg.norm(columns[:, best].T[:, :, None] - columns[None], axis=1)
    margins = jnp.take_along_axis(logits, best[:, None], axis=1) - logits
    is_other = jnp.arange(logits.shape[1])[None] != best[:, None]
    # Where two columns are one, no change of the state tells the two classes apart.
    distances = jnp.where(is_other & (apart > 0), margins / jnp.where(apart > 0, apart, 1), jnp.inf)
    left = jnp.min(distances, axis=1) - open_distance
    return jnp.maximum(jnp.where(jnp.isfinite(left), left, 0), 0) / per_change


def _of_state(model: ImageClassifier) -> Float[Array, ""]:
    """By how much the state changes at most, for what an image does."""
    cell = model.cell
    if not hasattr(cell, "monotone_map"):
        raise TypeError(
            f"nothing certain is known of a {type(cell).__name__}; a certificate is for the equilibrium of a monotone "
            "cell, such as nn.DenseMonotoneCell."
        )
    return model.stem.norm() * cell.injection_norm() / cell.m
