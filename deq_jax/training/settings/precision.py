"""In how many digits a run computes, and what tolerance that leaves no hope for."""

from typing import Literal

Precision = Literal["default", "float32", "tf32", "bfloat16"]
Digits = Literal["float32", "tf32", "bfloat16"]
PRODUCTS: dict[str, str | None] = {"default": None, "float32": "highest", "tf32": "tensorfloat32", "bfloat16": None}
"""What JAX is told of products of float32; None: nothing."""
EPS: dict[Digits, float] = {"float32": 2.0**-23, "tf32": 2.0**-10, "bfloat16": 2.0**-7}
"""The relative distance of neighbouring numbers."""


def residual_floor(digits: Digits) -> float:
    """The relative residual that a solve may not get below where its cell is evaluated in these digits.

    A number is rounded by up to ``eps / 2`` of it, and so is the cell's output: a state that is its own image to the
    last digit need not exist. Where products are summed in more digits than they have, nothing worse happens, and that
    is the floor; float32 has no more, and sums that round, too, leave up to ``2 eps``.
    """
    return 2 * EPS[digits] if digits == "float32" else EPS[digits] / 2
