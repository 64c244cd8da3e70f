"""DEQ for Flax Linen: a Linen cell becomes a Linen layer."""

from collections.abc import Callable
from typing import Any

import jax
from flax import errors, linen
from flax.core import DenyList
from jaxtyping import PyTree

from deq_jax.calls import advised_layer
from deq_jax.fixed_point import fixed_point
from deq_jax.gradients.adjoint import Adjoint, AdjointReport, Solver
from deq_jax.gradients.implicit_function import check_adjoint, check_solver
from deq_jax.nn.computed import repeated
from deq_jax.nn.initial_state import initial_state
from deq_jax.settings import whole_number
from deq_jax.solution import Solution
from deq_jax.solvers import anderson
from deq_jax.states.per_sample import where_it_fits


class DEQ(linen.Module):
    """The layer ``x ↦ z_star`` with ``z_star = cell(z_star, x)``; ``layer(x)`` is a Solution, its ``value`` ``z_star``.

    The cell's variables are the layer's, under the name ``cell``; those of a cell that is made in another module's
    compact method are that module's, as ever in Linen. Gradients reach them and ``x`` through
    [`deq_jax.fixed_point`][].

    Attributes:
        cell: any Flax Linen module ``cell(z, x) -> z``. It may read all of its variables in the solve and change none:
            a BatchNorm in training or a fresh dropout mask leaves no fixed point to find. What it sows, and what
            ``capture_intermediates`` asks for, comes from one more evaluation, at the equilibrium, and carries
            gradients. Where ``z`` has not the form of ``x``, the cell says where to start by a method
            ``initial_state(x)``.
        solver: any callable ``(f, z0) -> Solution``, usually ``functools.partial(deq_jax.anderson, tol=1e-3)``.
        adjoint: how the adjoint equation is met; None for the same solver. See [`deq_jax.fixed_point`][].
        per_sample: whether samples that have converged are evaluated no more; see [`deq_jax.nn.DEQ`][].
        width: samples that are evaluated at a time at most; None for the whole batch.
        unroll: how often the cell is evaluated instead of a solve; None: the equilibrium is solved for. See
            [`deq_jax.nn.DEQ`][].

    Raises:
        TypeError: ``cell`` is no Flax Linen module, ``solver`` no solver or ``adjoint`` no adjoint, or the cell returns
            another form than its state's.
        ValueError: ``unroll`` is not positive; when called: the cell changes a variable or draws random numbers inside
            the solve.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import linen
        >>> class Cell(linen.Module):
        ...     @linen.compact
        ...     def __call__(self, z, x):
        ...         return jnp.tanh(linen.Dense(3, kernel_init=linen.initializers.normal(0.1))(z) + x)
        >>> layer, x = DEQ(Cell()), jnp.ones((2, 3))
        >>> variables = layer.init(jax.random.key(0), x)
        >>> print(list(variables["params"]["cell"]), layer.apply(variables, x).status)
        ['Dense_0'] [0 0]

    Source: the chapter, "Implementing the backward pass".
    """

    cell: Callable[[PyTree, PyTree], PyTree]
    solver: Solver = anderson
    adjoint: Adjoint | None = None
    per_sample: bool = True
    width: int | None = None
    unroll: int | None = None

    def __post_init__(self) -> None:
        """Raise unless the cell is a Linen module, the solver a solver, the adjoint an adjoint and unroll a count."""
        if not isinstance(self.cell, linen.Module):
            raise TypeError(
                f"nn.linen.DEQ wraps a Flax Linen module, got {type(self.cell).__name__}. "
                "For a Flax NNX module use nn.DEQ(cell), for a plain function deq_jax.fixed_point(f, z0, x)."
            )
        check_solver("solver", self.solver)
        if self.adjoint is not None:
            check_adjoint(self.adjoint)
        if self.unroll is not None:
            whole_number("unroll", self.unroll)
        super().__post_init__()

    @linen.compact
    def __call__(self, x: PyTree, *, z0: PyTree | None = None, report: AdjointReport | None = None) -> Solution:
        """Solve for the equilibrium of the batch ``x``.

        Args:
            x: the injection, computed once, outside the solve; a pytree of arrays ``[batch, ...]``.
            z0: where to start; by default ``cell.initial_state(x)`` where there is one, and zeros like ``x`` elsewhere.
            report: see [`deq_jax.adjoint_report`][].

        Returns:
            A [`deq_jax.Solution`][], whose ``value`` is the equilibrium.

        Raises:
            TypeError: the cell returns another form than its state's, or ``x`` is not floating-point and the cell does
                not say where to start.
            ValueError: the cell changes a variable or draws random numbers inside the solve.
        """
        if z0 is None:
            z0 = initial_state(self.cell, x)
        if self.is_initializing():
            self.cell(z0, x)  # makes the variables, which the solve then only reads
        cell, variables = self.cell.unbind()  # type: ignore[attr-defined]

        def f(z: PyTree, x: PyTree, variables: Any) -> PyTree:
            try:
                return cell.apply(variables, z, x)
            except errors.ModifyScopeVariableError as error:
                raise ValueError(
                    "the cell changes its own variables inside the solve, which leaves no fixed point to find. Use "
                    "GroupNorm instead of BatchNorm, move it out of the cell, or freeze it with "
                    f"use_running_average=True. Flax says: {error}"
                ) from error
            except errors.InvalidRngError as error:
                raise ValueError(
                    "the cell draws random numbers inside the solve, anew in every evaluation, which leaves no fixed "
                    "point to find. Draw dropout masks once, before the solve, and hand them in with x, or set "
                    f"deterministic=True. Flax says: {error}"
                ) from error

        if self.unroll is not None:
            sol = repeated(f, z0, x, variables, times=self.unroll)
        else:
            marked = where_it_fits(x, z0, self.width) if self.per_sample else x
            sol = fixed_point(f, z0, marked, variables, solver=self.solver, adjoint=self.adjoint, report=report)
        if not self.is_initializing() and _leaves_something(cell, variables, self.is_mutable_collection, sol.value, x):
            self.cell(sol.value, x)
        return sol


DEQ.__init__ = advised_layer(DEQ.__init__)  # type: ignore[method-assign]  # which Linen has made


def _leaves_something(cell: Any, variables: Any, is_asked_for: Callable[[str], bool], z: PyTree, x: PyTree) -> bool:
    """Whether one evaluation, of which only the form is computed, leaves anything where the caller asks for it."""
    if is_asked_for("intermediates"):  # outputs, too, where it is capture_intermediates that asks
        return True
    found: list[Any] = []

    def evaluate(variables: Any, z: PyTree, x: PyTree) -> None:
        given = {id(leaf) for leaf in jax.tree.leaves(variables)}
        _, left = cell.apply(variables, z, x, mutable=DenyList(("params", "intermediates")))
        asked = {name: collection for name, collection in left.items() if is_asked_for(name)}
        found.extend(leaf for leaf in jax.tree.leaves(asked) if id(leaf) not in given)

    jax.eval_shape(evaluate, variables, z, x)
    return bool(found)
