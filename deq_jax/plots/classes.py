"""The picture of a classifier: which classes it takes for which."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.figure import Figure

from deq_jax.plots.style import new_figure

_NUMBERS = 30
"""Classes at most whose numbers are written into the cells, and whose names all stand at the axes."""


def confusion(
    counts: Int[np.ndarray, "n n"], classes: Sequence[str], *, title: str = "", figure: Figure | None = None
) -> Figure:
    """Draw a confusion matrix: each row is a class, coloured by the shares of its samples that were taken for others.

    Args:
        counts: ``[n, n]``; in row i and column j, how many samples of class i were taken for class j.
        classes: their names.
        title: a headline.
        figure: where to draw; by default a new figure, for a file and for a notebook.

    Returns:
        The figure.

    Raises:
        ValueError: there are not as many names as classes.

    Examples:
        >>> confusion(np.array([[9, 1], [0, 5]]), ["cat", "dog"]).axes[0].get_ylabel()
        'class'
    """
    n = len(counts)
    if len(classes) != n:
        raise ValueError(f"counts are of {n} classes, but there are {len(classes)} names.")
    side = min(4 + 0.4 * n, 16.0)
    figure = new_figure(side + 1, side) if figure is None else figure
    ax = figure.subplots()
    totals = counts.sum(1, keepdims=True)
    # A class without a sample has no shares.
    shares = np.divide(100 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=ax, label="% of the class", fraction=0.046)
    if n <= _NUMBERS:
        for i, j in np.argwhere(counts):
            color = "white" if shares[i, j] > 50 else "black"
            ax.text(j, i, f"{counts[i, j]:,}", ha="center", va="center", color=color, fontsize=8)
    shown = range(0, n, 1 + (n - 1) // _NUMBERS)
    # A name is no formula.
    names = [classes[k].replace("$", r"\$") for k in shown]
    is_long = max(map(len, names), default=0) > 3
    ax.set_xticks(shown, names, rotation=90 if is_long else 0)
    ax.set_yticks(shown, names)
    ax.set_xlabel("taken for")
    ax.set_ylabel("class")
    ax.set_title(title, fontsize=11)
    return figure
