"""What every solver returns: the equilibrium, and how far to trust it."""

import enum
from typing import NamedTuple

from jax import export
from jaxtyping import Array, Float, Int, PyTree


class Status(enum.IntEnum):
    """How the solve of one sample ended."""

    CONVERGED = 0
    """The relative residual reached ``tol``."""
    MAX_ITER = 1
    """``max_iter`` evaluations were spent first; the best iterate seen is returned."""
    DIVERGED = 2
    """A value of ``f``, or its norm, was not finite, even by plain steps from the best iterate, which is returned."""


class Solution(NamedTuple):
    """The fixed points of a batch of independent problems ``z = f(z)``.

    ``residual`` belongs to ``value``: it is ``‖f(value) − value‖₂ / ‖f(value)‖₂``, per sample. It is infinite where no
    evaluation of the sample was finite, and where ``f(value)`` is zero and ``value`` is not. Only ``value`` carries
    gradients, and only where it comes from [`deq_jax.fixed_point`][] or its sibling. Of one problem, solved with
    ``batched=False``, there is no batch axis.
    """

    value: PyTree[Float[Array, "..."]]
    """Like ``z0``: per sample, the iterate that converged, or else that of the smallest ``‖f(z) − z‖₂``; ``z0`` where
    none was finite."""
    residual: Float[Array, "*batch"]
    """Relative residual of ``value``, float32."""
    iterations: Int[Array, "*batch"]
    """Evaluations of ``f`` spent until the sample stopped, int32."""
    status: Int[Array, "*batch"]
    """A ``Status`` per sample, int8."""
    trace: Float[Array, "*max_iter_batch"] | None = None
    """Residual of every evaluation, ``[max_iter, batch]``; None if not asked for.

    Infinite where ``f`` is not finite, and after a sample stopped."""


# So that a program that returns one can be written to a file.
export.register_namedtuple_serialization(Solution, serialized_name="deq_jax.Solution")
