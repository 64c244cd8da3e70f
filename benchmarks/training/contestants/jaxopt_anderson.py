"""jaxopt's Anderson acceleration with implicit differentiation, as in jaxopt's own deep equilibrium example.

From that example (jaxopt 0.8.5, ``examples/fixed_point/deep_equilibrium_model.py``): the solver is mapped over the
samples, ``ridge`` is 1e-4, and the backward system goes to a linear solver at tolerance 1e-2. Of the solvers on
jaxopt's page "Linear system solving" we take BiCGStab: here it is faster and more accurate than GMRES and than the
example's conjugate gradients on the normal equations.

jaxopt stops on the absolute norm ``‖f(z) − z‖₂``. The cell ends in a group normalisation, so ``‖f(z)‖₂`` is the root of
the state's size, and the same relative tolerance is had by scaling ``tol`` with it.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jaxopt
from flax import nnx
from jaxopt.linear_solve import solve_bicgstab
from jaxtyping import Array, PyTree

from benchmarks.training.contestants.jax_model import JaxContestant, Solved, zero_state
from benchmarks.training.exchange import Problem
from benchmarks.training.worker import serve


def solve(f: Callable[..., Array], x: PyTree, state: PyTree, problem: Problem) -> Array:
    """The equilibrium of every sample, differentiable in ``x`` and ``state``."""

    def one(z: Array, x: PyTree, state: PyTree) -> Array:
        return f(z[None], jax.tree.map(lambda leaf: leaf[None], x), state)[0]

    solver = jaxopt.AndersonAcceleration(
        one,
        history_size=problem.m,
        ridge=1e-4,
        maxiter=problem.max_iter,
        tol=problem.tol * problem.state_size**0.5,
        implicit_diff=True,
        implicit_diff_solve=functools.partial(solve_bicgstab, tol=problem.tol, maxiter=problem.max_iter),
    )
    return jax.vmap(lambda z, x: solver.run(z, x, state).params)(zero_state(x), x)


def layer(cell: nnx.Module, problem: Problem) -> Solved:
    """The layer around the cell."""
    return Solved(cell, problem, solve)


def build(folder: Path) -> JaxContestant:
    """The contestant "jaxopt"."""
    return JaxContestant(folder, layer, "jaxopt")


if __name__ == "__main__":
    serve(build)
