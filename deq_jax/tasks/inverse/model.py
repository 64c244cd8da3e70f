"""The network: a cell of gradient steps and corrections, solved or evaluated a fixed number of times."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

import deq_jax
from deq_jax import nn
from deq_jax.gradients.adjoint import Adjoint, AdjointReport, Solver
from deq_jax.solution import Solution, Status
from deq_jax.states.norms import relative_residual
from deq_jax.states.trees import flatten_samples
from deq_jax.tasks.inverse.blur import blur_matrix
from deq_jax.tasks.inverse.config import Config
from deq_jax.tasks.inverse.data import Patches
from deq_jax.training.settings.solves import filled_from

Image = Float[Array, "batch side side 1"]


class Deblurrer(nnx.Module):
    """From what was measured to the patch: ``z_star`` itself."""

    def __init__(self, cell: nn.CorrectedGradientCell, solve: nn.DEQ | None, matrix: Array, steps: tuple[int, int]):
        self.cell = cell
        self.deq = solve
        self.matrix = matrix
        self.steps = steps

    def inject(self, measured: Patches) -> Image:
        """The injection ``Aᵀ y``."""
        return apply_blur(self.matrix, jnp.asarray(measured)[..., None])

    def __call__(
        self, measured: Patches, *, report: AdjointReport | None = None, is_training: bool = False
    ) -> Solution:
        """The patches as a solution whose value is ``[batch, side, side, 1]``."""
        x = self.inject(measured)
        if self.deq is not None:
            return self.deq(x, report=report)
        steps = self.steps[0 if is_training else 1]
        z = deq_jax.unrolled(self.cell, x, x, steps=steps)
        residual = relative_residual(flatten_samples(self.cell(z, x)), flatten_samples(z))
        batch = len(x)
        return Solution(
            z,
            residual.astype(jnp.float32),
            jnp.full(batch, steps, jnp.int32),
            jnp.full(batch, Status.MAX_ITER, jnp.int8),
        )


def build_model(config: Config, solver: Solver, adjoint: Adjoint, rngs: nnx.Rngs) -> Deblurrer:
    """The network that the settings describe."""
    matrix = jnp.asarray(blur_matrix(config.data.side, config.data.blur))

    def normal(z: Image) -> Image:
        return apply_blur(matrix, apply_blur(matrix, z))

    cell = nn.CorrectedGradientCell(normal, 1, config.model.channels, rngs=rngs)
    deq = nn.DEQ(cell, solver=solver, adjoint=adjoint) if config.model.kind == "equilibrium" else None
    evaluations = filled_from(config.evaluation, config.solver).max_iter
    return Deblurrer(cell, deq, matrix, (config.model.steps, evaluations))


def apply_blur(matrix: Array, z: Image) -> Image:
    """``T z Tᵀ``."""
    return jnp.einsum("ij,bjkc,lk->bilc", matrix, z, matrix)
