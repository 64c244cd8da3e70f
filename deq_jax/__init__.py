"""Deep equilibrium models in JAX: fixed points ``z = f(z, x)`` as differentiable functions.

The functional face. The Flax side is ``deq_jax.nn``, imported on its own: importing this package never imports Flax.
"""

from deq_jax.fixed_point import fixed_point, unrolled
from deq_jax.footprint import solve_bytes
from deq_jax.forward_mode import fixed_point_jvp
from deq_jax.gradients.adjoint import AdjointReport, adjoint_report, direct, implicit, or_nan
from deq_jax.gradients.krylov import krylov
from deq_jax.gradients.recomputed import recomputed
from deq_jax.gradients.truncated import jacobian_free, phantom
from deq_jax.independence import check_independence
from deq_jax.monotone_fixed_point import monotone_fixed_point
from deq_jax.solution import Solution, Status
from deq_jax.solvers import (
    Rule,
    anderson,
    broyden,
    forward_backward,
    forward_iteration,
    peaceman_rachford,
    solve,
)
from deq_jax.stability import contraction_penalty, jacobian_penalty, spectral_radius
from deq_jax.states.per_sample import per_sample

__version__ = "0.1.0"

__all__ = [
    "AdjointReport",
    "Rule",
    "Solution",
    "Status",
    "adjoint_report",
    "anderson",
    "broyden",
    "check_independence",
    "contraction_penalty",
    "direct",
    "fixed_point",
    "fixed_point_jvp",
    "forward_backward",
    "forward_iteration",
    "implicit",
    "jacobian_free",
    "jacobian_penalty",
    "krylov",
    "monotone_fixed_point",
    "or_nan",
    "peaceman_rachford",
    "per_sample",
    "phantom",
    "recomputed",
    "solve",
    "solve_bytes",
    "spectral_radius",
    "unrolled",
]
