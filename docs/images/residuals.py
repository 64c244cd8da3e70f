"""Draws residuals.png: python docs/images/residuals.py."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import deq_jax
from deq_jax import nn, plots

cell = nn.ResNetCell(channels=64, inner_channels=128, rngs=nnx.Rngs(0))
cell.conv2.kernel[...] *= 1.5  # stiffer than at the start of training
x = jax.random.normal(jax.random.key(1), (10, 32, 32, 64))


@functools.partial(jax.jit, static_argnames="solver")
def solve(solver):
    """Ten samples' solutions, with their traces."""
    return solver(lambda z: cell(z, x), jnp.zeros_like(x), tol=1e-4, max_iter=100, trace=True)


solutions = {
    "Anderson": solve(deq_jax.anderson),
    "Broyden": solve(deq_jax.broyden),
    "forward iteration": solve(deq_jax.forward_iteration),
}
figure = Figure(figsize=(9, 3.2), layout="constrained")
FigureCanvasAgg(figure)
left, right = figure.subplots(1, 2)
plots.residuals(solutions, tol=1e-4, ax=left)
plots.iterations(solutions, ax=right)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=100)
