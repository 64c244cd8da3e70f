"""The network: a problem's symbols become an injection, the state a class in every place."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deq_jax import nn
from deq_jax.gradients.adjoint import Adjoint, Solver
from deq_jax.solution import Solution
from deq_jax.tasks.puzzles.bodies import Body, Equilibrium, Layers, State, Unrolled
from deq_jax.tasks.puzzles.config import Config
from deq_jax.tasks.puzzles.problems import Grid, Kind
from deq_jax.tasks.puzzles.problems.sudoku import FORMS
from deq_jax.training.errors import UserError
from deq_jax.training.settings.solves import filled_from

Logits = Float[Array, "batch height width classes"]


class PuzzleModel(nnx.Module):
    """Encoder, body, head. All of them treat every place alike, so that strings and mazes of any size will do."""

    def __init__(self, encoder: nn.Conv, body: Body, head: "Head", kind: Kind):
        self.encoder = encoder
        self.body = body
        self.head = head
        self.symbols = kind.symbols
        self.side = kind.side

    def inject(self, clues: Grid) -> Float[Array, "batch height width inner_channels"]:
        """The injection.

        Raises:
            UserError: the clues are of a size that the network cannot take.
        """
        if self.side is not None and clues.shape[1:] != (self.side, self.side):
            raise UserError(
                f"the network was trained on boards of {self.side}×{self.side} places, and cannot take clues of shape "
                f"{list(clues.shape)}: it has not heard of their numbers."
            )
        return self.encoder(jax.nn.one_hot(clues, self.symbols))

    def __call__(self, clues: Grid, z0: State | None = None) -> tuple[Logits, Solution]:
        """What the network makes of clues, as in an evaluation, and the solve; ``z0``: where to start."""
        solution = self.body.solve(self.inject(clues), z0)
        return self.head(solution.value), solution

    def cell_at(self, clues: Grid) -> Callable[[State], State] | None:
        """The cell at the injection of these clues; None where there is no equilibrium."""
        if not isinstance(self.body, Equilibrium):
            return None
        cell, x = self.body.cell, self.inject(clues)
        return lambda z: cell(z, x)

    def learn(self, clues: Grid, report: Any) -> tuple[list[Logits], Solution]:
        """What it makes of them in the course of a training step."""
        states, solution = self.body.learn(self.inject(clues), report)
        return [self.head(state) for state in states], solution


class Head(nnx.Module):
    """Of every place's state alone the logits of its classes."""

    def __init__(self, channels: int, classes: int, *, rngs: nnx.Rngs):
        self.hidden = nn.Conv(channels, channels, 1, rngs=rngs)
        self.out = nn.Conv(channels, classes, 1, rngs=rngs)

    def __call__(self, z: State) -> Logits:
        """Logits ``[batch, height, width, classes]``."""
        return self.out(jax.nn.relu(self.hidden(z)))


def build_model(config: Config, kind: Kind, solver: Solver, adjoint: Adjoint, rngs: nnx.Rngs) -> PuzzleModel:
    """The network that the settings describe, for problems of this kind."""
    of = config.model
    cell, kernel = _cell_and_kernel(config, rngs)
    encoder = nn.Conv(kind.symbols, of.inner_channels, kernel, rngs=rngs)
    body: Body
    if of.kind == "equilibrium":
        segments = of.segments if of.gradient == "segments" else None
        body = Equilibrium(
            cell(),
            solver,
            adjoint,
            segments=segments,
            steps=of.steps,
            before=of.before,
            damping=config.solver.beta,
            noise=of.noise,
            start=of.start,
            rngs=rngs,
        )
    elif of.kind == "layers":
        body = Layers([cell() for _ in range(of.layers)])
    else:
        evaluated = filled_from(config.evaluation, config.solver).max_iter
        body = Unrolled(cell(), recall=of.kind == "unrolled", depth=of.steps, depth_in_evaluation=evaluated)
    return PuzzleModel(encoder, body, Head(of.channels, kind.classes, rngs=rngs), kind)


def _cell_and_kernel(config: Config, rngs: nnx.Rngs) -> tuple[Callable[[], Any], int | tuple[int, int]]:
    of, data = config.model, config.data
    if data.puzzle == "sudoku":
        box = FORMS[data.side].box
        return lambda: nn.MixingCell(of.channels, of.inner_channels, box=box, rngs=rngs), 1
    kernel = (1, of.kernel_size) if data.puzzle == "prefix-sums" else of.kernel_size
    return lambda: nn.RecallCell(of.channels, of.inner_channels, kernel_size=kernel, rngs=rngs), kernel


def answered(logits: Logits) -> Grid:
    """The likeliest class in every place."""
    return jnp.argmax(logits, axis=-1)
