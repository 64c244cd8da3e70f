"""What may stand between a text's embedding and what is foretold: an equilibrium, or the layers it is measured against.

A body reads a segment: of inputs, one memory for each of its ``memories``, and dropout masks it makes a solution. It
gives the memories of the next segment beside it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from deq_jax import nn
from deq_jax.gradients.adjoint import Adjoint, AdjointReport, Solver
from deq_jax.nn.computed import computed
from deq_jax.nn.layers.dropout import Masks
from deq_jax.nn.sequence.memory import State
from deq_jax.solution import Solution

Memories = tuple[nn.Memory, ...]


class Segment(NamedTuple):
    """A segment as it was read."""

    solution: Solution
    memories: Memories
    """Of the next one."""
    injection: Any = ()
    """That of the equilibrium; nothing where there is none."""


class Equilibrium(nnx.Module):
    """The equilibrium of a cell, which remembers the equilibria of the segments before."""

    memories = 1

    def __init__(self, cell: nn.TransformerCell, solver: Solver, adjoint: Adjoint):
        self.deq = nn.DEQ(cell, solver=solver, adjoint=adjoint)

    @property
    def cells(self) -> Sequence[nn.TransformerCell]:
        """The one."""
        return [cast(nn.TransformerCell, self.deq.cell)]

    def __call__(
        self, inputs: State, memories: Memories, masks: Masks, z0: State | None, report: AdjointReport | None
    ) -> Segment:
        """As every body does."""
        x = self.cells[0].inject(inputs, memories[0], masks)
        solution = self.deq(x, z0=z0, report=report)
        return Segment(solution, (memories[0].followed_by(solution.value, inputs),), x)


class Tied(nnx.Module):
    """The same cell evaluated a fixed number of times, from zeros; each time it remembers what it was given then."""

    def __init__(self, cell: nn.TransformerCell, depth: int):
        self.cells = nnx.List([cell])
        self.memories = depth

    def __call__(
        self, inputs: State, memories: Memories, masks: Masks, z0: State | None, report: AdjointReport | None
    ) -> Segment:
        """As every body does."""
        del z0, report
        cell = self.cells[0]

        def evaluate(z: State, memory: nn.Memory) -> tuple[State, nn.Memory]:
            return cell(z, cell.inject(inputs, memory, masks)), memory.followed_by(z, inputs)

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *memories)
        z, after = lax.scan(evaluate, jnp.zeros_like(inputs), stacked)
        each = tuple(jax.tree.map(lambda leaf, k=k: leaf[k], after) for k in range(self.memories))
        return Segment(computed(z, self.memories), each)


class Layers(nnx.Module):
    """An ordinary Transformer: layers of weights of their own, each of which remembers what it was given."""

    def __init__(self, cells: Sequence[nn.TransformerCell]):
        self.cells = nnx.List(cells)
        self.memories = len(cells)

    def __call__(
        self, inputs: State, memories: Memories, masks: Masks, z0: State | None, report: AdjointReport | None
    ) -> Segment:
        """As every body does."""
        del z0, report
        z, after = inputs, []
        for cell, memory in zip(self.cells, memories, strict=True):
            after.append(memory.followed_by(z, inputs))
            z = cell(z, cell.inject(inputs, memory, masks))
        return Segment(computed(z, len(self.cells)), tuple(after))


Body = Equilibrium | Tied | Layers
