"""DEQ: a cell becomes a layer, whose output is the cell's equilibrium."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import PyTree

from deq_jax.calls import advised_layer
from deq_jax.fixed_point import fixed_point
from deq_jax.gradients.adjoint import Adjoint, AdjointReport, Solver
from deq_jax.gradients.implicit_function import check_adjoint, check_solver
from deq_jax.monotone_fixed_point import monotone_fixed_point
from deq_jax.nn.computed import repeated
from deq_jax.nn.dtype import check_dtype, evaluated_in
from deq_jax.nn.initial_state import initial_state
from deq_jax.settings import whole_number
from deq_jax.solution import Solution
from deq_jax.solvers import anderson
from deq_jax.states.per_sample import where_it_fits


class DEQ(nnx.Module):
    """The layer ``x ↦ z_star`` with ``z_star = cell(z_star, x)``; ``layer(x)`` is a Solution, its ``value`` ``z_star``.

    Gradients reach the cell's parameters and ``x`` through [`deq_jax.fixed_point`][].

    Args:
        cell: any Flax NNX module ``cell(z, x) -> z``. It may read all of its state in the solve and change none: a
            BatchNorm in training or a fresh dropout mask leaves no fixed point to find. Parameters it may compute anew
            in every evaluation, as a weight normalisation does, but what it leaves in them is lost. What it sows as an
            ``nnx.Intermediate`` comes from one more evaluation, at the equilibrium, and carries gradients. Where ``z``
            has not the form of ``x``, the cell says where to start by a method ``initial_state(x)``. A ``prepared()``
            may return the module to solve with: what depends on parameters alone is then computed once, outside the
            solve. A cell with a method ``monotone_map(x)`` is solved by [`deq_jax.monotone_fixed_point`][], and so by
            solvers that know the map's parts, too.
        solver: any callable ``(f, z0) -> Solution``, usually ``functools.partial(deq_jax.anderson, tol=1e-3)``.
        adjoint: how the adjoint equation is met; None for the same solver. See [`deq_jax.fixed_point`][].
        per_sample: whether samples that have converged are evaluated no more, where all of ``x`` has the batch as its
            leading axis. Say False where ``jax.jit`` spreads a batch over devices: groups are picked from all of it.
        width: samples that are evaluated at a time at most; None for the whole batch. See [`deq_jax.per_sample`][].
        unroll: how often the cell is evaluated where there is to be no solve: an ordinary network of so many layers
            that share their weights, by plain backpropagation, in memory that grows with them. Its solutions have as
            many evaluations, and no residual (infinite). None: the equilibrium is solved for.
        dtype: what the solve evaluates the cell in, such as ``jnp.bfloat16``: state, injection and parameters are cast
            to it for each evaluation, and what the cell returns is cast back. States, norms, gradients and all that is
            summed keep their own dtypes. None: as everything is. The residual then has a floor, about half of that
            dtype's ``eps``, below which no tolerance is reached.

    Raises:
        TypeError: ``cell`` is no Flax NNX module, ``solver`` no solver or ``adjoint`` no adjoint, ``dtype`` no
            floating-point one, or the cell returns another form than its state's.
        ValueError: ``width`` or ``unroll`` is not positive; when called: the cell changes its state inside the solve,
            or a ``dtype`` is given for a monotone cell, whose linear systems have none to spare.

    Source: the chapter, "Implementing the backward pass", and "Deep networks and fixed point equations" for ``unroll``,
    the weight-tied network with input injection; Bai et al., "Trellis networks for sequence modeling", 2019.
    """

    @advised_layer
    def __init__(
        self,
        cell: Callable[[PyTree, PyTree], PyTree],
        *,
        solver: Solver = anderson,
        adjoint: Adjoint | None = None,
        per_sample: bool = True,
        width: int | None = None,
        unroll: int | None = None,
        dtype: DTypeLike | None = None,
    ):
        if not isinstance(cell, nnx.Module):
            raise TypeError(
                f"DEQ wraps a Flax NNX module, got {type(cell).__name__}. "
                "For a plain function use deq_jax.fixed_point(f, z0, x)."
            )
        check_solver("solver", solver)
        if adjoint is not None:
            check_adjoint(adjoint)
        self.cell = cell
        self.solver = solver
        self.adjoint = adjoint
        self.per_sample = per_sample
        self.width = None if width is None else whole_number("width", width)
        self.unroll = None if unroll is None else whole_number("unroll", unroll)
        self.dtype = check_dtype(dtype)

    def __call__(self, x: PyTree, *, z0: PyTree | None = None, report: AdjointReport | None = None) -> Solution:
        """Solve for the equilibrium of the batch ``x``.

        Args:
            x: the injection, computed once, outside the solve; a pytree of arrays ``[batch, ...]``. Samples that have
                converged are evaluated no more: the cell is called with fewer, and with their rows of ``x``.
            z0: where to start; by default ``cell.initial_state(x)`` where there is one, and zeros like ``x`` elsewhere.
            report: see [`deq_jax.adjoint_report`][].

        Returns:
            A [`deq_jax.Solution`][], whose ``value`` is the equilibrium.

        Raises:
            TypeError: the cell returns another form than its state's, or ``x`` is not floating-point and the cell does
                not say where to start.
            ValueError: the cell changes its own state inside the solve, or ``dtype`` is set and the cell monotone.
        """
        if z0 is None:
            z0 = initial_state(self.cell, x)
        if hasattr(self.cell, "monotone_map"):
            if self.dtype is not None:
                raise ValueError("a monotone cell is solved in the dtype of its state: leave out the dtype.")
            of_cell = self.cell.monotone_map(x)
            if self.unroll is not None:
                return repeated(of_cell, z0, times=self.unroll)
            return monotone_fixed_point(of_cell, z0, solver=self.solver, adjoint=self.adjoint, report=report)
        graph, state = nnx.split(prepared(self.cell))
        state = nnx.with_vars(state, ref=False)  # values, which f may depend on

        sown: set[str] = set()

        def f(z: PyTree, x: PyTree, state: Any) -> PyTree:
            # A merged copy: what the cell changes on it is seen here, and lost.
            cell = nnx.merge(graph, state, copy=True)
            before, sown_before = _leaves(cell), _leaves(cell, nnx.Intermediate)
            fz = cell(z, x)
            if _changed(before, _leaves(cell)):
                _refuse_changes(graph, state, z, x)
            sown.update(_changed(sown_before, _leaves(cell, nnx.Intermediate)))
            return fz

        lean = evaluated_in(self.dtype, f)
        if self.unroll is not None:
            solution = repeated(lean, z0, x, state, times=self.unroll)
        else:
            marked = where_it_fits(x, z0, self.width) if self.per_sample else x
            solution = fixed_point(lean, z0, marked, state, solver=self.solver, adjoint=self.adjoint, report=report)
        if sown:
            self.cell(solution.value, x)
        return solution


def prepared(cell: Any) -> Any:
    """The module to evaluate a cell by, many times over: ``cell.prepared()`` where there is one, or the cell."""
    return cell.prepared() if hasattr(cell, "prepared") else cell


def at_injection(cell: Any, x: PyTree) -> Callable[[PyTree], PyTree]:
    """``z ↦ cell(z, x)``, to be evaluated many times over: with its parts, where the cell tells them."""
    if hasattr(cell, "monotone_map"):
        return cell.monotone_map(x)
    ready = prepared(cell)
    return lambda z: ready(z, x)


_CARRIED = nnx.Not(nnx.Any(nnx.Param, nnx.Intermediate))
"""All that a cell could carry from one evaluation to the next: parameters are computed anew, and sowing only tells."""


def _leaves(cell: Any, kind: Any = _CARRIED) -> dict[str, Any]:
    leaves = jax.tree.leaves_with_path(nnx.as_pure(nnx.state(cell, kind)))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of which there is another object after than before, or none."""
    return [name for name in sorted(before.keys() | after.keys()) if before.get(name) is not after.get(name)]


def _refuse_changes(graph: Any, state: Any, z: PyTree, x: PyTree) -> None:
    """Raise a ValueError where the cell changes state, rather than hand out the same under another object.

    As ``nnx.remat`` and ``nnx.jit`` do. Where a value comes from is told by the program that the cell is.
    """

    def evaluate(z: PyTree, x: PyTree, state: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        cell = nnx.merge(graph, state, copy=True)
        before = _leaves(cell)
        cell(z, x)
        return before, _leaves(cell)

    closed, (before, after) = jax.make_jaxpr(evaluate, return_shape=True)(z, x, state)
    given, left = (
        dict(zip(sorted(names), variables, strict=True))
        for names, variables in (
            (before, closed.jaxpr.outvars[: len(before)]),
            (after, closed.jaxpr.outvars[len(before) :]),
        )
    )
    changed = [
        name
        for name in sorted(given.keys() | left.keys())
        if name not in given or name not in left or _origin(closed.jaxpr, left[name]) is not given[name]
    ]
    if changed:
        raise ValueError(
            f"the cell changes its own state inside the solve ({', '.join(changed)}), which leaves no fixed point to "
            "find. Use GroupNorm instead of BatchNorm, move it out of the cell or freeze it with cell.eval(), and draw "
            "dropout masks once, before the solve. What a cell sows is no such state if it is an nnx.Intermediate."
        )


def _origin(jaxpr: Any, variable: Any) -> Any:
    """The input of a program that a variable is handed through from; the variable itself where it is computed."""
    for equation in jaxpr.eqns:
        if variable in equation.outvars and "jaxpr" in equation.params:
            inner = getattr(equation.params["jaxpr"], "jaxpr", equation.params["jaxpr"])  # closed, or not
            source = _origin(inner, inner.outvars[equation.outvars.index(variable)])
            if source in inner.invars:
                return _origin(jaxpr, equation.invars[inner.invars.index(source)])
    return variable
