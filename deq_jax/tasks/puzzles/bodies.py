"""What may stand between encoder and head: an equilibrium, and the networks that it is measured against.

A body learns and solves. ``learn(x, report)`` gives the states after which an answer counts in training, and the last
one as a solution; ``solve(x, z0)`` the solution of an evaluation.
"""

from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Key

import deq_jax
from deq_jax import nn
from deq_jax.gradients.adjoint import Adjoint, AdjointReport, Solver
from deq_jax.nn.computed import computed
from deq_jax.solution import Solution, Status
from deq_jax.states.norms import relative_residual
from deq_jax.states.trees import flatten_samples

State = Float[Array, "batch height width channels"]
Injection = Float[Array, "batch height width inner_channels"]
Cell = nn.RecallCell | nn.MixingCell


class Equilibrium(nnx.Module):
    """The equilibrium of a cell, found by the solver, and learned by the adjoint or from segments.

    Long before a cell has learned anything it has no equilibrium for an adjoint to be exact at. So a training step
    follows the states themselves: ``segments`` times it evaluates ``steps`` times and differentiates through that; the
    state is carried on without its gradient. Half of the samples start from random states, and noise is added to the
    state before every evaluation. What is learned is to come to the answer from wherever one is, and to stay there; and
    that what one place tells another has to be told clearly, or it would be lost on a way longer than those learned on.

    A step goes ``z ← z + damping · (f(z) − z)``, as the solver's does. Up to ``before`` of them come before the first
    segment, without a gradient, in a number that is drawn anew for every batch: what is learned is to stay at an answer
    that was come to long ago, too.

    Source: the segments and the damping of Bai et al., "Equilibrium reasoners", 2026; the starts of Anil et al., "Path
    independent equilibrium models can better exploit test-time computation", 2022; the evaluations before, of a random
    number and without a gradient, from the progressive loss of Bansal et al., "End-to-end algorithm synthesis with
    recurrent networks", 2022.
    """

    def __init__(
        self,
        cell: Cell,
        solver: Solver,
        adjoint: Adjoint,
        *,
        segments: int | None,
        steps: int,
        before: int,
        damping: float,
        noise: float,
        start: float,
        rngs: nnx.Rngs,
    ):
        self.deq = nn.DEQ(cell, solver=solver, adjoint=adjoint)
        self.segments = segments
        self.steps = steps
        self.before = before
        self.damping = damping
        self.noise = noise
        self.start = start
        self.rngs = nnx.Rngs(noise=rngs.noise())

    def learn(self, x: Injection, report: AdjointReport | None) -> tuple[list[State], Solution]:
        """As every body does."""
        z = self.cell.initial_state(x)
        is_random = (jnp.arange(len(x)) % 2 == 1)[:, None, None, None]
        z = jnp.where(is_random, self._normal(z, self.start), z)
        if self.segments is None:
            solution = self.deq(x, z0=z, report=report)
            return [solution.value], solution
        states: list[State] = []
        z = self._come_before(z, x)
        for _ in range(self.segments):
            z = self._segment(lax.stop_gradient(z), x)
            states.append(z)
        return states, _measured(self.cell, z, x, self.segments * self.steps)

    def solve(self, x: Injection, z0: State | None = None) -> Solution:
        """As every body does."""
        return self.deq(x, z0=z0)

    @property
    def cell(self) -> Cell:
        """The cell ``f(z, x)``."""
        return cast(Cell, self.deq.cell)

    def _segment(self, z: State, x: Injection) -> State:
        def evaluate(z: State, key: Key[Array, ""]) -> tuple[State, None]:
            return self._step(self.cell, z, x, key), None

        return lax.scan(evaluate, z, jax.random.split(self.rngs.noise(), self.steps))[0]

    def _come_before(self, z: State, x: Injection) -> State:
        """What a random number of steps makes of the state, from 0 to ``before``."""
        if not self.before:
            return z
        # A loop of a number that is not known beforehand has no gradient, so nothing in it may ask for one.
        graph, weights = nnx.split(self.cell)
        cell, x = nnx.merge(graph, lax.stop_gradient(weights)), lax.stop_gradient(x)
        number = jax.random.randint(self.rngs.noise(), (), 0, self.before + 1)
        key = self.rngs.noise()
        return lax.fori_loop(0, number, lambda k, z: self._step(cell, z, x, jax.random.fold_in(key, k)), z)

    def _step(self, cell: Cell, z: State, x: Injection, key: Key[Array, ""]) -> State:
        z += self.noise * jax.random.normal(key, z.shape, z.dtype)
        fz = cell(z, x)
        return fz if self.damping == 1 else z + self.damping * (fz - z)

    def _normal(self, like: State, deviation: float) -> State:
        return deviation * jax.random.normal(self.rngs.noise(), like.shape, like.dtype)


class Unrolled(nnx.Module):
    """The same cell evaluated a fixed number of times from zeros: a recurrent network, trained by backpropagation.

    Without ``recall`` it sees the problem in its first evaluation alone.
    """

    def __init__(self, cell: Cell, *, recall: bool, depth: int, depth_in_evaluation: int):
        self.cell = cell
        self.recall = recall
        self.depth = depth
        self.depth_in_evaluation = depth_in_evaluation

    def learn(self, x: Injection, report: AdjointReport | None) -> tuple[list[State], Solution]:
        """As every body does."""
        del report
        solution = self._run(x, None, self.depth)
        return [solution.value], solution

    def solve(self, x: Injection, z0: State | None = None) -> Solution:
        """As every body does."""
        return self._run(x, z0, self.depth_in_evaluation)

    def _run(self, x: Injection, z0: State | None, depth: int) -> Solution:
        z = self.cell.initial_state(x) if z0 is None else z0
        if self.recall:
            return _measured(self.cell, deq_jax.unrolled(self.cell, z, x, steps=depth), x, depth)
        z = self.cell(z, x)
        nothing = jnp.zeros_like(x)
        if depth > 1:
            z = deq_jax.unrolled(self.cell, z, nothing, steps=depth - 1)
        return _measured(self.cell, z, nothing, depth)


class Layers(nnx.Module):
    """Cells with weights of their own, each evaluated once; all of them see the problem."""

    def __init__(self, cells: Sequence[Cell]):
        self.cells = nnx.List(cells)

    def learn(self, x: Injection, report: AdjointReport | None) -> tuple[list[State], Solution]:
        """As every body does."""
        del report
        solution = self.solve(x)
        return [solution.value], solution

    def solve(self, x: Injection, z0: State | None = None) -> Solution:
        """As every body does."""
        z = self.cells[0].initial_state(x) if z0 is None else z0
        for cell in self.cells:
            z = cell(z, x)
        return computed(z, len(self.cells))


def _measured(cell: Cell, z: State, x: Injection, evaluations: int) -> Solution:
    """The state after so many evaluations as a solution; what measures it is one more, and has no gradient."""
    fz = lax.stop_gradient(cell(z, x))
    residual = relative_residual(*(flatten_samples(lax.stop_gradient(state)) for state in (fz, z)))
    status = jnp.full(len(z), Status.MAX_ITER, jnp.int8)
    return Solution(z, residual.astype(jnp.float32), jnp.full(len(z), evaluations, jnp.int32), status)


Body = Equilibrium | Unrolled | Layers
