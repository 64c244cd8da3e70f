"""optimistix's fixed-point iteration with its implicit adjoint, and a matrix-free linear solver of lineax.

optimistix has no Anderson acceleration. Its documentation asks for a linear solver in place of the dense default where
the state is large, and for ``jax.vmap`` over independent problems. The root mean square of ``f(z)`` is 1, the cell
ending in a group normalisation, so ``rms_norm`` with ``atol`` is the relative tolerance of everyone else.

lineax measures residuals component by component, against ``rtol`` times each component of the right-hand side, which is
far stricter than a ratio of norms: ``rtol = 1`` and two cycles of GMRES meet 1e-2 in the norm with room to spare. Of
restarts after 3, 4, 5, 8 and 10 products, 3 took the fewest in all. BiCGStab breaks down on this system.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import lineax
import optimistix
from flax import nnx
from jaxtyping import Array, PyTree

from benchmarks.training.contestants.jax_model import JaxContestant, Solved, zero_state
from benchmarks.training.exchange import Problem
from benchmarks.training.worker import serve


def solve(f: Callable[..., Array], x: PyTree, state: PyTree, problem: Problem) -> Array:
    """The equilibrium of every sample, differentiable in ``x`` and ``state``."""
    solver = optimistix.FixedPointIteration(rtol=0.0, atol=problem.tol, norm=optimistix.rms_norm)
    linear_solver = lineax.GMRES(
        rtol=100 * problem.tol, atol=0.0, norm=optimistix.rms_norm, restart=3, max_steps=problem.max_iter
    )

    def one(z: Array, x: PyTree) -> Array:
        solution = optimistix.fixed_point(
            lambda z, args: f(z[None], jax.tree.map(lambda leaf: leaf[None], args[0]), args[1])[0],
            solver,
            z,
            (x, state),
            max_steps=problem.max_iter,
            adjoint=optimistix.ImplicitAdjoint(linear_solver),
            throw=False,
        )
        return solution.value

    return jax.vmap(one)(zero_state(x), x)


def layer(cell: nnx.Module, problem: Problem) -> Solved:
    """The layer around the cell."""
    return Solved(cell, problem, solve)


def build(folder: Path) -> JaxContestant:
    """The contestant "optimistix"."""
    return JaxContestant(folder, layer, "optimistix", "lineax", "equinox")


if __name__ == "__main__":
    serve(build)
