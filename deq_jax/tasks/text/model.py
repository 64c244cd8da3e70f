"""The network: numbers become embeddings, segments are read one after the other, embeddings tell what follows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from deq_jax import nn
from deq_jax.gradients.adjoint import Adjoint, AdjointReport, Solver
from deq_jax.nn.layers.dropout import DropoutMasks
from deq_jax.nn.sequence.memory import State
from deq_jax.solution import Solution
from deq_jax.tasks.text.bodies import Body, Equilibrium, Layers, Memories, Segment, Tied
from deq_jax.tasks.text.config import DataConfig, ModelConfig
from deq_jax.tasks.text.windows import Segments

Logits = Float[Array, "batch *places vocabulary"]


class Reading(NamedTuple):
    """What the network makes of windows."""

    logits: Float[Array, "batch segments length vocabulary"]
    """Of what follows each position."""
    solutions: tuple[Solution, ...]
    """One for each segment."""
    functions: tuple[Callable[[State], State], ...] | None
    """The cell at each segment's injection; None where there is no equilibrium."""


class LanguageModel(nnx.Module):
    """Embedding, body, and the same embedding again.

    Args:
        vocabulary: numbers there are.
        body: reads segments.
        features: features of a position.
        remembered: positions that a segment remembers.
        dropout: share that is dropped in training.
        rngs: where initial values and dropout masks are drawn from.

    Source: Press and Wolf, "Using the output embedding to improve language models", 2017, for the tied embedding.
    """

    def __init__(self, vocabulary: int, body: Body, features: int, *, remembered: int, dropout: float, rngs: nnx.Rngs):
        self.body = body
        self.features = features
        self.remembered = remembered
        self.embedding = nnx.Param(features**-0.5 * jax.random.normal(rngs.params(), (vocabulary, features)))
        self.bias = nnx.Param(jnp.zeros(vocabulary))
        self.masks = DropoutMasks(dropout, rngs=rngs)

    def embedded(self, tokens: Int[Array, " batch *places"]) -> Float[Array, "batch *places features"]:
        """The inputs, whose numbers have variance 1 at first."""
        return self.embedding[...][tokens] * self.features**0.5

    def told(self, z: Float[Array, "batch *places features"]) -> Logits:
        """Logits of what follows."""
        return z @ self.embedding[...].T + jnp.expand_dims(self.bias[...], tuple(range(z.ndim - 1)))

    def beginning(self, batch: int, remembered: int | None = None) -> Memories:
        """The memories of a text's beginning."""
        length = self.remembered if remembered is None else remembered
        return (nn.Memory.empty(batch, length, self.features),) * self.body.memories

    def __call__(self, tokens: Segments, *, report: Any = None) -> Reading:
        """Read windows ``[batch, segments, length]``.

        ``report``: that of each segment's solve; see [`deq_jax.adjoint_report`][].
        """
        batch, segments, _ = tokens.shape
        inputs = jnp.moveaxis(self.embedded(jnp.asarray(tokens)), 1, 0)
        shapes = self.body.cells[0].mask_shapes(batch)
        masks = self.masks(*((segments, *shape) for shape in shapes))
        reports = None if report is None else _stacked((report,) if segments == 1 else report)

        def read(memories: Memories, given: tuple) -> tuple[Memories, tuple]:
            segment: Segment = self.body(given[0], memories, given[1], None, given[2])
            return segment.memories, (segment.solution, segment.injection)

        _, (solutions, injections) = lax.scan(read, self.beginning(batch), (inputs, masks, reports))
        logits = self.told(jnp.moveaxis(solutions.value, 0, 1))
        is_solved = isinstance(self.body, Equilibrium)
        return Reading(
            logits,
            tuple(jax.tree.map(lambda leaf, s=s: leaf[s], solutions) for s in range(segments)),
            tuple(self._function(injections, s) for s in range(segments)) if is_solved else None,
        )

    def _function(self, injections: Any, segment: int) -> Callable[[State], State]:
        cell, x = self.body.cells[0].prepared(), jax.tree.map(lambda leaf: leaf[segment], injections)
        return lambda z: cell(z, x)


def _stacked(reports: tuple[AdjointReport | None, ...]) -> AdjointReport | None:
    """One with an axis of segments; None in an evaluation."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *reports)


def build_model(
    of: ModelConfig, data: DataConfig, vocabulary: int, solver: Solver, adjoint: Adjoint, rngs: nnx.Rngs
) -> LanguageModel:
    """The network that the settings describe."""

    def cell() -> nn.TransformerCell:
        return nn.TransformerCell(
            of.features,
            of.inner_features,
            heads=of.heads,
            positions=of.memory + data.length,
            injects=of.kind != "layers",
            rngs=rngs,
        )

    body: Body
    if of.kind == "equilibrium":
        body = Equilibrium(cell(), solver, adjoint)
    elif of.kind == "tied":
        body = Tied(cell(), of.layers)
    else:
        body = Layers([cell() for _ in range(of.layers)])
    return LanguageModel(vocabulary, body, of.features, remembered=of.memory, dropout=of.dropout, rngs=rngs)
