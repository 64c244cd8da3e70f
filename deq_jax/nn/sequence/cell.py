"""A causal Transformer's layer as a cell: its state is a sequence, whose positions hear of those before them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from deq_jax.nn.layers.dropout import Masks, dropped
from deq_jax.nn.layers.weight_normalisation import NormalisedLinear, with_plain_layers
from deq_jax.nn.sequence.memory import Memory, State
from deq_jax.nn.sequence.positions import RelativePositions, shifted
from deq_jax.settings import whole_number

Heads = Float[Array, "batch length heads size"]


class Injection(NamedTuple):
    """What a [`deq_jax.nn.TransformerCell`][] takes beside its state: arrays with a row for each sequence."""

    projected: Float[Array, "batch length three_features"]
    """The inputs' part of queries, keys and values, ``[batch, length, 3 · features]``."""
    keys: Float[Array, "batch memory heads size"]
    """Of what is remembered."""
    values: Float[Array, "batch memory heads size"]
    is_there: Bool[Array, "batch memory"]
    """Which of the remembered positions there are."""
    masks: Masks = ()
    """Dropout masks: behind the attention, within and behind the two layers; none in an evaluation."""


class TransformerCell(nnx.Module):
    r"""Causal attention and two layers, each added to what it is given and normalised, ``f(z, x)``.

    $$f(z, x) = \mathrm{norm}(y + W_2\, \mathrm{ReLU}(W_1 y + b_1) + b_2), \qquad
    y = \mathrm{norm}(z + W_o\, \mathrm{attention}(W z + U x)),$$

    with queries, keys and values ``W z + U x`` for every position, ``norm`` to mean 0 and variance 1 over its features,
    and scores ``(q + u)ᵀ k + (q + v)ᵀ r(distance)``. A position attends to itself and to those before it, also
    of the memory: their keys and values are made once, outside the solve, and so are, by ``prepared()``, all normalised
    weights. The state is ``[batch, length, features]``, and the solve starts from zeros.

    Args:
        features: features of a position.
        inner_features: features between the two layers.
        heads: heads of the attention; must divide ``features``.
        positions: how many positions, memory included, a segment may have.
        injects: whether there is an injection; an ordinary layer has none.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from.

    Raises:
        ValueError: ``heads`` does not divide ``features``, which must be even; when called: there are more positions
            than that.

    Source: Bai, Kolter and Koltun, "Deep equilibrium models", 2019, the DEQ-Transformer; its positions are those of Dai
    et al., "Transformer-XL", 2019.
    """

    def __init__(
        self,
        features: int,
        inner_features: int,
        *,
        heads: int = 4,
        positions: int = 128,
        injects: bool = True,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        heads, self.limit = whole_number("heads", heads), whole_number("positions", positions)
        if features % heads or features % 2:
            raise ValueError(f"features must be even, and heads divide them; got {features} features, {heads} heads.")

        def linear(into: int, out: int, use_bias: bool) -> NormalisedLinear:
            return NormalisedLinear(into, out, use_bias=use_bias, param_dtype=param_dtype, rngs=rngs)

        self.features, self.heads = features, heads
        self.attend = linear(features, 3 * features, use_bias=False)
        self.out = linear(features, features, use_bias=False)
        self.hidden = linear(features, inner_features, use_bias=True)
        self.back = linear(inner_features, features, use_bias=True)
        self.positions = RelativePositions(self.limit, features, heads, param_dtype=param_dtype, rngs=rngs)
        zeros = jnp.zeros((heads, features // heads), param_dtype)
        self.content_bias, self.position_bias = nnx.Param(zeros), nnx.Param(zeros)
        self.inject_inputs = linear(features, 3 * features, use_bias=False) if injects else None

    def inject(self, inputs: State, memory: Memory, masks: Masks = ()) -> Injection:
        """The injection of inputs ``[batch, length, features]`` behind a memory; computed once, outside the solve.

        Raises:
            ValueError: there are more positions than the cell has been made for.
        """
        reach = memory.is_there.shape[1] + inputs.shape[1]
        if reach > self.limit:
            raise ValueError(
                f"a sequence of {inputs.shape[1]} positions behind {memory.is_there.shape[1]} remembered ones is "
                f"longer than the {self.limit} positions of the cell. Cut it into segments, or make the cell with more."
            )
        cell = self.prepared()
        remembered = cell._projected(memory.z, cell._from_inputs(memory.inputs))
        return Injection(cell._from_inputs(inputs), *remembered[1:], memory.is_there, masks)

    def __call__(self, z: State, x: Injection) -> State:
        """Evaluate ``f(z, x)``."""
        y = standardised(z + dropped(self.out(self._attended(z, x)), x.masks, 0))
        hidden = dropped(jax.nn.relu(self.hidden(y)), x.masks, 1)
        return standardised(y + dropped(self.back(hidden), x.masks, 2))

    def initial_state(self, x: Injection) -> State:
        """Zeros, ``[batch, length, features]``."""
        return jnp.zeros((*x.projected.shape[:2], self.features), x.projected.dtype)

    def mask_shapes(self, batch: int) -> tuple[tuple[int, int, int], ...]:
        """Those of the dropout masks, ``[batch, 1, features]``: all positions of a sequence share one."""
        inner = self.hidden.kernel.shape[1]
        return (batch, 1, self.features), (batch, 1, inner), (batch, 1, self.features)

    def prepared(self) -> "TransformerCell":
        """The cell to solve with; see [`deq_jax.nn.DEQ`][]."""
        return with_plain_layers(self)

    def _from_inputs(self, inputs: State) -> Float[Array, "batch length three_features"]:
        if self.inject_inputs is None:
            return jnp.zeros((*inputs.shape[:2], 3 * self.features), inputs.dtype)
        return self.inject_inputs(inputs)

    def _projected(self, z: State, injected: Array) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values."""
        queries, keys, values = jnp.split(self.attend(z) + injected, 3, axis=-1)
        shape = (*z.shape[:2], self.heads, self.features // self.heads)
        return queries.reshape(shape), keys.reshape(shape), values.reshape(shape)

    def _attended(self, z: State, x: Injection) -> State:
        queries, keys, values = self._projected(z, x.projected)
        keys, values = jnp.concatenate([x.keys, keys], 1), jnp.concatenate([x.values, values], 1)
        length, reach = z.shape[1], keys.shape[1]
        content = jnp.einsum("bqhd,bkhd->bhqk", queries + self.content_bias[...][None, None], keys)
        by_distance = self.positions()[:reach][::-1]
        position = jnp.einsum("bqhd,khd->bhqk", queries + self.position_bias[...][None, None], by_distance)
        scores = (content + shifted(position)) * (self.features // self.heads) ** -0.5
        weights = jax.nn.softmax(jnp.where(_is_seen(x.is_there, length), scores, -jnp.inf), axis=-1)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, values).reshape(z.shape)


def standardised(y: State, epsilon: float = 1e-5) -> State:
    """Every position ``[batch, length, features]`` moved and scaled to mean 0 and variance 1; nothing is learned."""
    centred = y - jnp.mean(y, axis=-1, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + epsilon)


def _is_seen(is_there: Bool[Array, "batch memory"], length: int) -> Bool[Array, "batch 1 length reach"]:
    """Of what is remembered what there is, and of the segment itself a position and those before it."""
    batch = is_there.shape[0]
    remembered = jnp.broadcast_to(is_there[:, None, None], (batch, 1, length, is_there.shape[1]))
    itself = jnp.broadcast_to(jnp.tri(length, dtype=bool)[None, None], (batch, 1, length, length))
    return jnp.concatenate([remembered, itself], -1)
