"""In how many digits a run computes, and what tolerance that leaves no hope for."""

from typing import Literal

Precision = Literal["default", "float32", "tf32", "bfloat16"]
Digits = Literal["float32", "tf32", "bfloat16"]
PRODUCTS: dict[str, str | None] = {"default": None, "float32": "highest", "tf32": "tensorfloat32", "bfloat16": None}
"""What JAX is told of products of float32; None: nothing."""
EPS: dict[Digits, float] = {"float32": 2.0**-23, "tf32": 2.0**-10, "bfloat16": 2.0**-7}
"""The relative distance of neighbouring numbers."""


def residual_floor(digits: Digits) -> float:
    """The relative residual that a solve may not get below where its cell is evaluated in these digits: ``eps / 2``.

    A number is rounded by up to half of that distance, and so the cell's output: a state that is its own image to the
    last digit need not exist. Measured on cells of this library, the smallest residuals of a batch lie between an
    eighth of this and once this; float32's also depend on how many terms its products sum.
    """
    return EPS[digits] / 2
