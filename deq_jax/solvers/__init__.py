"""Solvers of ``z = f(z)``: each is an update rule in one shared loop."""

from deq_jax.solvers.anderson import anderson
from deq_jax.solvers.broyden import broyden
from deq_jax.solvers.forward_iteration import forward_iteration
from deq_jax.solvers.loop import Rule, solve

__all__ = ["Rule", "anderson", "broyden", "forward_iteration", "solve"]
