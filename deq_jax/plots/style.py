"""What all pictures share: colours, axes, and figures that need no window system."""

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = ("#1f6f8b", "#d1603d", "#8a8f98", "#5b8c5a", "#8e5ea2", "#c9a227")
"""The project's colours, in the order in which they are used."""
FORWARD, ADJOINT = COLORS[:2]
"""Those of the forward and of the adjoint solve."""


def current_axes(ax: Axes | None) -> Axes:
    """These axes, or matplotlib's current ones."""
    if ax is None:
        import matplotlib.pyplot as plt  # here, since it chooses a window system

        return plt.gca()
    return ax


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, for a file and for a notebook."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # no window system is needed
    return figure


def dressed(ax: Axes, xlabel: str, ylabel: str) -> Axes:
    """The axes with labels, a grid, and a legend where something has a name."""
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=9)
    return ax
