"""Forward iteration: the next iterate is ``f`` of the last one."""

from collections.abc import Callable

import jax
from jaxtyping import PyTree

from deq_jax.calls import advised_solver
from deq_jax.settings import Scalar, check_positive
from deq_jax.solution import Solution
from deq_jax.solvers.loop import Rule, solve
from deq_jax.states.trees import Matrices


@advised_solver
def forward_iteration(
    f: Callable[[PyTree], PyTree],
    z0: PyTree,
    *,
    damping: Scalar = 1.0,
    tol: Scalar = 1e-2,
    max_iter: int = 50,
    atol: Scalar = 0.0,
    trace: bool = False,
    batched: bool = True,
) -> Solution:
    """Solve ``z = f(z)`` by forward iteration, ``z ← z + damping · (f(z) − z)``, each sample on its own.

    Converges where the Jacobian of the damped map has a spectral radius below 1 at the equilibrium, at the rate of
    that radius.

    Args:
        f: maps a state to a state of the same structure, shapes and dtypes, each sample on its own.
        z0: where to start; a pytree of floating-point arrays ``[batch, ...]``.
        damping: the share of the step to ``f(z)`` that is taken, positive; 1 is plain iteration.
        tol: relative residual ``‖f(z) − z‖₂ / ‖f(z)‖₂`` at which a sample has converged.
        max_iter: evaluations of ``f`` at most.
        atol: ``‖f(z) − z‖₂`` at which a sample has converged, too, at least 0: for equilibria near zero.
        trace: whether to record the residual of every evaluation.
        batched: False where ``z0`` is one problem, of leaves of any shapes, and no batch; the solution has no
            batch axis then.

    Returns:
        A [`deq_jax.Solution`][] without a derivative, NaN in forward mode: that is [`deq_jax.fixed_point`][]'s.

    Raises:
        TypeError: ``f(z0)`` has another structure, shape or dtype than ``z0``, ``z0`` is not floating-point, or the
            solution is differentiated in reverse mode.
        ValueError: the leading axes of ``z0`` differ, or a setting is not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> sol = forward_iteration(lambda z: 0.5 * z + 1, jnp.zeros((1, 3)), tol=1e-6)
        >>> print(sol.value.round(4), sol.iterations)
        [[2. 2. 2.]] [20]

    Source: the chapter, "Implementation of the forward pass".
    """
    check_positive("damping", damping)
    is_plain = isinstance(damping, int | float) and damping == 1

    def damped(z: Matrices, fz: Matrices) -> Matrices:
        return jax.tree.map(lambda a, b: a + (damping * (b - a)).astype(a.dtype), z, fz)

    rule = Rule(lambda z0: (), lambda z, fz, state, k: (fz if is_plain else damped(z, fz), state))
    return solve(rule, f, z0, tol=tol, max_iter=max_iter, atol=atol, trace=trace, batched=batched)
