"""What both ways of differentiating an equilibrium share: everything that ``f`` depends on, and a sound solution."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array, Int, PyTree

from deq_jax.solution import Solution, Status
from deq_jax.solvers.working_set import widths
from deq_jax.states.per_sample import Narrowable, PerSample, rows_of, unmarked, width_of
from deq_jax.states.trees import (
    Batch,
    Rows,
    batch_size,
    check_same_form,
    flatten_samples,
    restore_samples,
    sample_where,
)
from deq_jax.states.unchanging import ahead
from deq_jax.states.varying import varying_like


def hoist(f: Callable[..., PyTree], z0: PyTree, args: tuple) -> tuple[Callable[..., PyTree], list]:
    """``f`` as a function of everything that it depends on: ``apply(z, args, closure)``, and the ``closure``.

    A ``custom_vjp`` may not close over tracers. Tracing finds all of them, integers included, which
    ``jax.closure_convert`` leaves in place. ``f`` must be new, as ``trees.matched`` makes it: of the same one JAX
    remembers the program, with what that closed over when it was first traced.
    """
    jaxpr, out = jax.make_jaxpr(f, return_shape=True)(z0, *args)
    structure, closure = jax.tree.structure(out), jaxpr.consts
    program = jaxpr.replace(consts=[None] * len(closure))  # which JAX remembers for longer than the tracers live

    def apply(z: PyTree, args: tuple, closure: list) -> PyTree:
        outputs = jaxpr_as_fun(program.replace(consts=closure))(*jax.tree.leaves((z, args)))
        return jax.tree.unflatten(structure, outputs)

    return apply, closure


def hoist_groups(f: Callable[..., PyTree], z0: PyTree, args: tuple) -> tuple[Callable[..., Any], list]:
    """For groups of the batch, if ``args`` mark what belongs to samples or ``f`` can be had for rows.

    Returns:
        ``in_groups(whole, args, closure)``, which is ``whole``, for some of its samples, too, where that can be; and
        the closure.
    """
    marks, plain, width = tuple(isinstance(arg, PerSample) for arg in args), unmarked(args), width_of(args)
    sizes = widths(batch_size(z0), width) if any(marks) or hasattr(f, "for_rows") else []
    if not sizes:
        return lambda whole, args, closure: whole, []
    programs, closures = {}, []
    for size in sizes:
        try:
            programs[size], closure = hoist_rows(f, z0, plain, marks, size)
        except Exception as error:
            if _is_certain(args):
                raise _not_for_some(batch_size(z0), size, error) from error
            return lambda whole, args, closure: whole, []
        closures.append(closure)

    def in_groups(whole: Callable[[PyTree], PyTree], args: tuple, closures: list) -> Narrowable:
        held = dict(zip(sizes, closures, strict=True))

        def for_rows(rows: Rows) -> Callable[[PyTree], PyTree]:
            return programs[len(rows)](args, rows, held[len(rows)])

        return Narrowable(whole, for_rows, width=width)

    return in_groups, closures


def can_be_narrowed(f: Callable[..., PyTree], z0: PyTree, args: tuple, width: int) -> bool:
    """Whether ``f`` can be had for ``width`` samples: something is marked, and that is all that belongs to samples.

    Raises:
        TypeError: the user's mark says so, and it is not.
    """
    marks = tuple(isinstance(arg, PerSample) for arg in args)
    if not any(marks):
        return False
    rows = jnp.arange(width)
    z = jax.tree.map(lambda leaf: leaf[:width], z0)
    try:
        check_same_form(jax.eval_shape(f, z, *rows_of(unmarked(args), marks, rows)), z)
    except Exception as error:
        if _is_certain(args):
            raise _not_for_some(batch_size(z0), width, error) from error
        return False
    return True


def _is_certain(args: tuple) -> bool:
    """Whether it is the user who says of all that is marked that it belongs to samples."""
    return all(arg.is_certain for arg in args if isinstance(arg, PerSample))


def _not_for_some(batch: Batch, width: int, error: Exception) -> TypeError:
    return TypeError(
        f"per_sample says that samples can be evaluated without the others, but of {batch} samples f "
        f"could not be evaluated for {width}: {type(error).__name__}: {error}. What has the batch as its leading "
        "axis must be an argument, marked by per_sample, and not be closed over."
    )


def hoist_rows(
    f: Callable[..., PyTree], z0: PyTree, args: tuple, marks: tuple[bool, ...], width: int
) -> tuple[Callable[[tuple, Rows, list], Callable[[PyTree], PyTree]], list]:
    """``f`` for ``width`` of the samples: ``prepare(args, rows, closure)`` is a function of ``z``; the closure.

    What does not depend on ``z`` is computed when it is prepared.
    """
    rows = jnp.arange(width)
    z = jax.tree.map(lambda leaf: leaf[:width], z0)

    def narrow(z: PyTree, args: tuple, rows: Rows) -> PyTree:
        of_rows = f.for_rows(rows) if hasattr(f, "for_rows") else f
        return varying_like(of_rows(z, *args), z)

    jaxpr, out = jax.make_jaxpr(narrow, return_shape=True)(z, rows_of(args, marks, rows), rows)
    check_same_form(out, z)
    structure, closure = jax.tree.structure(out), jaxpr.consts
    before, after = ahead(jaxpr.replace(consts=[None] * len(closure)).jaxpr, len(jax.tree.leaves(z)))

    def prepare(args: tuple, rows: Rows, closure: list) -> Callable[[PyTree], PyTree]:
        kept = before(closure, *jax.tree.leaves((rows_of(args, marks, rows), rows)))
        return lambda z: jax.tree.unflatten(structure, after(kept, *jax.tree.leaves(z)))

    return prepare, closure


def check_solver(name: str, solver: Any) -> None:
    """Raise a TypeError unless ``solver`` can be called as ``solver(f, z0)``."""
    try:
        inspect.signature(solver).bind("f", "z0")
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be a callable (f, z0) -> Solution, got {solver!r}: {error}. "
            "Pass a function, such as functools.partial(deq_jax.anderson, tol=1e-3)."
        ) from error


def check_adjoint(adjoint: Any) -> Any:
    """``adjoint`` itself, or a TypeError where it cannot be called as ``adjoint(transposed, y, fixed_point)``."""
    try:
        inspect.signature(adjoint).bind("transposed", "y", "fixed_point")
    except (TypeError, ValueError) as error:
        raise TypeError(
            "adjoint must be None or what deq_jax.implicit(solver), direct(), krylov(), jacobian_free() or "
            f"phantom(steps) returns; got {adjoint!r}."
        ) from error
    return adjoint


def check_arguments(args: tuple) -> None:
    """Raise a TypeError unless ``args`` hold arrays or numbers only."""
    for path, leaf in jax.tree.leaves_with_path(args):
        if not (hasattr(leaf, "dtype") or isinstance(leaf, bool | int | float | complex)):
            raise TypeError(
                f"args, what follows z0, must hold arrays and numbers only, but args{jax.tree_util.keystr(path)} is "
                f"{leaf!r}. "
                + (
                    "Close over a function: f = lambda z, x: cell(z, x, function). A solver goes in by name, solver=."
                    if callable(leaf)
                    else "Close over what is no array: f = functools.partial(f, setting=...)."
                )
            )


def check_solution(solution: Any, z0: PyTree) -> None:
    """Raise a TypeError unless a solver returned a Solution like ``z0``."""
    if not isinstance(solution, Solution):
        raise TypeError(
            f"the solver must return a deq_jax.Solution, got {type(solution).__name__}. "
            "Pass a callable (f, z0) -> Solution, such as functools.partial(deq_jax.anderson, tol=1e-3)."
        )
    check_same_form(solution.value, z0)
    if jnp.shape(solution.status) != (batch_size(z0),):
        raise TypeError(
            f"the solver must return a status for each of {batch_size(z0)} samples, got shape "
            f"{jnp.shape(solution.status)}. A solver given to fixed_point is called with a batch, of one for one "
            "problem: say batched=False to fixed_point, and not to the solver."
        )


def where_solved(status: Int[Array, " batch"], y: PyTree) -> PyTree:
    """The tangent or cotangent ``y`` of a solution, zero for samples that diverged."""
    flat = flatten_samples(y)
    return restore_samples(sample_where(status != Status.DIVERGED, flat, jax.tree.map(jnp.zeros_like, flat)), y)
