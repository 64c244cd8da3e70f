"""The precision of a run, put into effect: on its layers that solve, and on the products of what it compiles."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from deq_jax.training.errors import UserError
from deq_jax.training.settings.precision import PRODUCTS, Digits, Precision, residual_floor
from deq_jax.training.settings.settings import Settings
from deq_jax.training.settings.solves import filled_from


def layers_that_solve(model: nnx.Module) -> list[Any]:
    """The model's `nn.DEQ`s."""
    return [layer for _, layer in nnx.iter_modules(model) if hasattr(layer, "per_sample")]


def set_dtype(model: nnx.Module, precision: Precision) -> None:
    """Makes the layers that solve evaluate their cells in that dtype.

    Raises:
        UserError: there is none, or its cell has no digits to spare.
    """
    if precision != "bfloat16":
        return
    layers = layers_that_solve(model)
    if not layers:
        raise UserError(
            "precision is bfloat16, in which nn.DEQ evaluates its cell, but the model has none.\n"
            "Cast within the model where it may be so, or give another precision: float32, tf32 or default."
        )
    for layer in layers:
        if hasattr(layer.cell, "monotone_map"):
            raise UserError(
                "precision is bfloat16, but the cell is monotone, and its linear systems need all digits.\n"
                "Give another precision: float32, tf32 or default."
            )
        layer.dtype = jnp.bfloat16


def in_precision[F: Callable[..., Any]](precision: Precision, function: F) -> F:
    """``function``, to be compiled with products of float32 as the settings say."""
    products = PRODUCTS[precision]
    if products is None:
        return function

    @functools.wraps(function)
    def precise(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision(products):
            return function(*args, **kwargs)

    return precise  # type: ignore[return-value]


def digits_of(precision: Precision, platform: str) -> Digits:
    """The fewest digits that a cell's evaluation goes through on devices of a platform, ``cpu``, ``gpu`` or ``tpu``."""
    if precision in ("float32", "bfloat16"):
        return precision
    said = jax.config.jax_default_matmul_precision
    if platform == "cpu" or (precision == "default" and said in ("highest", "float32")):
        return "float32"
    if platform == "tpu":
        return "bfloat16" if precision == "default" else "float32"  # tf32 is there three products of bfloat16
    return "tf32"


def unreachable(settings: Settings, platform: str) -> Iterator[str]:
    """A line for each tolerance that the digits cannot be relied on to resolve, with the least that they can."""
    digits = digits_of(settings.precision, platform)
    floor = residual_floor(digits)
    tolerances = {"solver.tol": settings.solver.tol, "evaluation.tol": settings.evaluation.tol}
    if settings.adjoint.kind == "implicit":
        tolerances["adjoint.tol"] = filled_from(settings.adjoint, settings.solver).tol
    for name, tol in tolerances.items():
        if tol is not None and tol < floor:
            finer = "" if digits == "float32" else ", or take precision float32"
            yield (
                f"note: {name} {tol:g} is below {floor:.1e}, the least residual that a cell evaluated in {digits} is "
                f"sure to resolve: such solves may spend all of max_iter. Raise it{finer}."
            )
