"""Solvers of ``z = f(z)``: each is an update rule in one shared loop.

A solver of your own is a ``Rule``, a pair of functions, and everything else is the loop's: evaluating ``f``,
measuring residuals, stopping and freezing samples one by one, keeping the best iterate, counting. ``init(z0)`` makes
what the rule remembers; ``update(z, fz, state, k)``, called after evaluation ``k`` found ``fz = f(z)``, proposes the
next iterate. States come flattened: pytrees whose leaves are matrices ``[batch, n]``. Here is Aitken's method, which
takes each number's last two steps for a geometric series and jumps to its limit:

>>> import functools
>>> import jax, jax.numpy as jnp
>>> def aitken(f, z0, **settings):
...     def init(z0):
...         return jax.tree.map(jnp.zeros_like, z0)
...
...     def jump(z, fz, step_before):
...         step = fz - z
...         change = step_before - step
...         limit = z + step * step_before / jnp.where(change == 0, 1, change)
...         return jnp.where(change == 0, fz, limit)
...
...     def update(z, fz, step_before, k):
...         # Every other time: the series must be f's own.
...         jumped = jax.tree.map(jump, z, fz, step_before)
...         z_next = jax.tree.map(lambda a, b: jnp.where(k % 2 == 1, a, b), jumped, fz)
...         return z_next, jax.tree.map(jnp.subtract, fz, z)
...
...     return solve(Rule(init, update), f, z0, **settings)
>>> sol = aitken(lambda z: jnp.cos(z), jnp.zeros((1, 1)), tol=1e-6, max_iter=20)
>>> print(f"{sol.value[0, 0]:.5f}", sol.iterations, sol.status)
0.73909 [7] [0]

It is a solver like the others, for [`deq_jax.fixed_point`][] too:

>>> import deq_jax
>>> solver = functools.partial(aitken, tol=1e-6, max_iter=30)
>>> def z_star(x):
...     return deq_jax.fixed_point(lambda z, x: 0.5 * z + x, x, x, solver=solver).value[0, 0]
>>> print(f"{jax.grad(z_star)(jnp.ones((1, 1)))[0, 0]:.3f}")
2.000
"""

from deq_jax.solvers.anderson import anderson
from deq_jax.solvers.broyden import broyden
from deq_jax.solvers.forward_iteration import forward_iteration
from deq_jax.solvers.loop import Rule, solve
from deq_jax.solvers.splitting import forward_backward, peaceman_rachford

__all__ = ["Rule", "anderson", "broyden", "forward_backward", "forward_iteration", "peaceman_rachford", "solve"]
