"""A Gaussian blur as a linear map of square patches, and its inverse problem."""

import numpy as np
from jaxtyping import Float

Matrix = Float[np.ndarray, "side side"]


def blur_matrix(side: int, deviation: float) -> Matrix:
    """``T`` of the blur ``A z = T z Tᵀ`` of patches ``[side, side]``, beyond which there is black.

    It is symmetric, and so is the blur its own transpose; no singular value of it is above 1.
    """
    places = np.arange(side)
    weights = np.exp(-0.5 * ((places[:, None] - places) / deviation) ** 2)
    # By the sum over a whole line, so that no row of a small patch is made brighter.
    offsets = np.arange(-4 * side, 4 * side + 1)
    return (weights / np.exp(-0.5 * (offsets / deviation) ** 2).sum()).astype(np.float32)


def blurred(patches: Float[np.ndarray, "*batch side side"], matrix: Matrix) -> Float[np.ndarray, "*batch side side"]:
    """``T z Tᵀ`` of each."""
    return matrix @ patches @ matrix.T
