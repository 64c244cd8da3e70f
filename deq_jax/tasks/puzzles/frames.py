"""A maze being solved: what the network answers after every so many evaluations."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from deq_jax.plots.style import new_figure
from deq_jax.tasks.puzzles.bodies import Equilibrium
from deq_jax.tasks.puzzles.model import PuzzleModel
from deq_jax.tasks.puzzles.problems import Grid, maze

Shares = Float[np.ndarray, "frames height width"]
_WALL, _FREE, _WAY, _START, _END = "#30343b", "#f4f1ea", "#e4572e", "#2e86ab", "#3aa655"


def frames(model: PuzzleModel, clues: Grid, evaluations: Sequence[int], damping: float = 1.0) -> Shares:
    """How likely every place of one problem belongs to class 1 after each of these numbers of evaluations, from zeros.

    Each goes ``z ← z + damping · (f(z) − z)``, as `deq_jax.forward_iteration` does.

    Raises:
        TypeError: the model is no equilibrium.
    """
    if not isinstance(model.body, Equilibrium):
        raise TypeError(f"frames are of an equilibrium, but the model's body is a {type(model.body).__name__}.")
    cell = model.body.cell
    x = model.inject(clues[None])
    z, shares = cell.initial_state(x), []
    steps = np.diff([0, *evaluations])

    @jax.jit
    def once(z: jax.Array) -> jax.Array:
        return z + damping * (cell(z, x) - z)

    for number in steps:
        for _ in range(number):
            z = once(z)
        shares.append(jax.nn.softmax(model.head(z))[0, ..., 1])
    return np.stack(shares)


def strip(
    clues: Grid, shares: Shares, evaluations: Sequence[int], width: float = 9.0, figure: Figure | None = None
) -> Figure:
    """The frames of a maze side by side, on this figure or a new one: walls, and in colour the way that is seen."""
    figure = figure or new_figure(width, width / len(shares) + 0.25)
    for ax, share, number in zip(figure.subplots(1, len(shares), squeeze=False)[0], shares, evaluations, strict=True):
        ax.imshow(picture(clues, share), interpolation="nearest")
        ax.set_title(f"{number}", fontsize=9)
        ax.set_axis_off()
    return figure


def picture(clues: Grid, share: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "rows columns 3"]:
    """A maze within its outer wall, in colours."""
    share = share[..., None]
    image = (1 - share) * np.array(to_rgb(_FREE)) + share * np.array(to_rgb(_WAY))
    for symbol, color in ((maze.WALL, _WALL), (maze.START, _START), (maze.END, _END)):
        image = np.where((clues == symbol)[..., None], np.array(to_rgb(color)), image)
    framed = np.broadcast_to(np.array(to_rgb(_WALL)), (clues.shape[0] + 2, clues.shape[1] + 2, 3)).copy()
    framed[1:-1, 1:-1] = image
    return framed
