"""Approximate gradients: the adjoint equation cut short, or not solved at all."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

from deq_jax.gradients.adjoint import Adjoint, Transposed
from deq_jax.settings import whole_number
from deq_jax.solution import Solution, Status
from deq_jax.states.trees import Batch, batch_size
from deq_jax.states.varying import varying_like

_WRITTEN_OUT = 4
"""Steps of a phantom gradient that compilers may merge; more are a loop, whose compilation does not grow with them."""


def jacobian_free() -> Adjoint:
    """Take ``g = y``, as if the Jacobian were zero: no solve at all, an approximate gradient.

    It is a descent direction where ``f`` is contractive enough. Nothing is measured, so the report's residual is
    infinite and its status MAX_ITER.

    Source: Fung et al., "JFB: Jacobian-free backpropagation for implicit networks", 2022.
    """

    @_measures_nothing
    def solve(transposed: Transposed, y: PyTree, fixed_point: Callable[..., Solution]) -> Solution:
        del transposed, fixed_point
        return _truncated(y, 0, batch_size(y))

    return solve


def phantom(steps: int, damping: float = 1.0) -> Adjoint:
    r"""Cut the damped Neumann series of the inverse short; approximate.

    $$g = \delta \sum_{i=0}^{\text{steps}} \big((1 - \delta)\,I + \delta\,J^\top\big)^i\, y,$$

    which is ``steps`` damped iterations from ``g = damping · y``, and what backpropagation through ``steps + 1`` damped
    evaluations of ``f`` at the equilibrium gives. Nothing is measured, so the report's residual is infinite and its
    status MAX_ITER.

    Args:
        steps: vector-Jacobian products to spend, at least 1.
        damping: the share ``δ`` of each step that is taken, in (0, 1].

    Returns:
        An adjoint, to hand to [`deq_jax.fixed_point`][].

    Raises:
        ValueError: ``steps`` is not positive, or ``damping`` is out of its range.

    Source: Geng et al., "On training implicit models", 2021, section 3.
    """
    steps = whole_number("steps", steps)
    if not 0 < damping <= 1:
        raise ValueError(f"phantom's damping must lie in (0, 1], got {damping}.")
    share = float(damping)  # a NumPy number would widen a narrower state

    @_measures_nothing
    def solve(transposed: Transposed, y: PyTree, fixed_point: Callable[..., Solution]) -> Solution:
        del fixed_point

        def step(_: int, g: PyTree) -> PyTree:
            return jax.tree.map(lambda g, jg, y: (1 - share) * g + share * (jg + y), g, transposed(g), y)

        g = varying_like(jax.tree.map(lambda y: share * y, y), jax.eval_shape(transposed, y))
        g = lax.fori_loop(0, steps, step, g, unroll=min(steps, _WRITTEN_OUT))
        return _truncated(g, steps, batch_size(y))

    return solve


def _measures_nothing(adjoint: Adjoint) -> Adjoint:
    adjoint.measures_nothing = True  # type: ignore[attr-defined]  # for or_nan
    return adjoint


def _truncated(g: PyTree, steps: int, batch: Batch) -> Solution:
    return Solution(
        g,
        jnp.full((batch,), jnp.inf, jnp.float32),
        jnp.full((batch,), steps, jnp.int32),
        jnp.full((batch,), Status.MAX_ITER, jnp.int8),
    )
