"""In how many bits a run computes, and what tolerance that leaves no hope for."""

from typing import Literal

Precision = Literal["default", "float32", "tf32", "bfloat16"]
Rounding = Literal["float32", "tf32", "bfloat16"]
PRODUCTS: dict[str, str | None] = {"default": None, "float32": "highest", "tf32": "tensorfloat32", "bfloat16": None}
"""What JAX is told of products of float32; None: nothing."""
EPS: dict[Rounding, float] = {"float32": 2.0**-23, "tf32": 2.0**-10, "bfloat16": 2.0**-7}
"""The relative distance of neighbouring numbers."""


def residual_floor(rounding: Rounding) -> float:
    """The relative residual that a solve may not get below where its cell is evaluated in these bits.

    A number is rounded by up to ``eps / 2`` of it, and so is the cell's output: a state that is mapped to itself to the
    last bit need not exist. Where products are summed in more bits than they have, nothing worse happens, and that
    is the floor; float32 has no more, and sums that round, too, leave up to ``2 eps``.
    """
    return 2 * EPS[rounding] if rounding == "float32" else EPS[rounding] / 2
