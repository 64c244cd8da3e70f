"""Cells for problems that need as much computing as they are hard: whatever the size, every place works alike.

No norm is taken over places, so that a place depends on others through its neighbours alone, near or far, and what was
learned on small problems holds on large ones.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deq_jax.nn.layers.conv import Conv, along_channels

State = Float[Array, "batch height width channels"]
Injection = Float[Array, "batch height width inner_channels"]


_LECUN = nnx.initializers.lecun_normal()


class RMSNorm(nnx.Module):
    """Every place scaled to one length: ``scale · z / √(mean z² + epsilon)``, the mean over channels alone.

    Args:
        channels: channels of the input ``[batch, ..., channels]``.
        epsilon: added to the mean square.
        param_dtype: dtype of the scale.

    Raises:
        ValueError: the input has another number of channels.

    Source: Zhang and Sennrich, "Root mean square layer normalization", 2019.
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-4, param_dtype: DTypeLike = jnp.float32):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(channels, param_dtype))

    def __call__(self, z: Float[Array, "batch *space channels"]) -> Float[Array, "batch *space channels"]:
        """Normalise ``[batch, ..., channels]``."""
        if z.shape[-1] != self.scale.shape[0]:
            raise ValueError(f"RMSNorm takes [batch, ..., {self.scale.shape[0]}], channels last; got {list(z.shape)}.")
        wide = z.astype(jnp.promote_types(z.dtype, jnp.float32))
        factor = lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.epsilon)
        return (wide * factor * along_channels(self.scale[...], z)).astype(z.dtype)


class RecallCell(nnx.Module):
    """A convolutional cell that recalls the problem in every evaluation, ``f(z, x) = norm(W₂ ∗ ReLU(W₁ ∗ z + x))``.

    The state ``z`` is ``[batch, height, width, channels]``, the injection ``x`` ``[batch, height, width,
    inner_channels]``. What a place knows spreads by one kernel's reach in each of the two convolutions, so that far
    places need many evaluations. Beyond the edges there are zeros. The solve starts from zeros.

    Args:
        channels: channels of ``z``.
        inner_channels: channels of ``x``, and between the convolutions.
        kernel_size: side of the square kernels, or their rows and columns; odd. ``(1, 3)`` for strings, which are grids
            of one row.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from.

    Raises:
        ValueError: ``kernel_size`` is even.

    Source: the recall of Bansal et al., "End-to-end algorithm synthesis with recurrent networks", 2022.
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int,
        *,
        kernel_size: int | tuple[int, int] = 3,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.channels = channels
        self.conv1 = Conv(channels, inner_channels, kernel_size, kernel_init=_LECUN, param_dtype=param_dtype, rngs=rngs)
        self.conv2 = Conv(inner_channels, channels, kernel_size, kernel_init=_LECUN, param_dtype=param_dtype, rngs=rngs)
        self.norm = RMSNorm(channels, param_dtype=param_dtype)

    def __call__(self, z: State, x: Injection) -> State:
        """Evaluate ``f(z, x)``."""
        return self.norm(self.conv2(jax.nn.relu(self.conv1(z) + x)))

    def initial_state(self, x: Injection) -> State:
        """Zeros, ``[batch, height, width, channels]``."""
        return jnp.zeros((*x.shape[:-1], self.channels), x.dtype)


class MixingCell(nnx.Module):
    r"""A cell whose places hear of their row, column and box, as in a Sudoku.

    $$f(z, x) = \mathrm{norm}\big(W_2\, \mathrm{ReLU}(W_1 [z, \bar z_{row}, \bar z_{column}, \bar z_{box}] + x)\big)$$

    with the means of the state over the places' row, column and box. The state ``z`` is ``[batch, side, side,
    channels]``, the injection ``x`` ``[batch, side, side, inner_channels]``. The solve starts from zeros.

    Args:
        channels: channels of ``z``.
        inner_channels: channels of ``x``, and between the two products.
        box: rows and columns of a box.
        param_dtype: dtype of the parameters.
        rngs: where the initial values are drawn from.

    Raises:
        ValueError: when called: the boxes do not cover the grid.

    Source: the relations of Palm et al., "Recurrent relational networks", 2018, as means.
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int,
        *,
        box: tuple[int, int],
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.channels = channels
        self.box = box
        self.conv1 = Conv(4 * channels, inner_channels, 1, kernel_init=_LECUN, param_dtype=param_dtype, rngs=rngs)
        self.conv2 = Conv(inner_channels, channels, 1, kernel_init=_LECUN, param_dtype=param_dtype, rngs=rngs)
        self.norm = RMSNorm(channels, param_dtype=param_dtype)

    def __call__(self, z: State, x: Injection) -> State:
        """Evaluate ``f(z, x)``."""
        return self.norm(self.conv2(jax.nn.relu(self.conv1(self._with_means(z)) + x)))

    def initial_state(self, x: Injection) -> State:
        """Zeros, ``[batch, side, side, channels]``."""
        return jnp.zeros((*x.shape[:-1], self.channels), x.dtype)

    def _with_means(self, z: State) -> Float[Array, "batch height width four_channels"]:
        (batch, height, width, channels), (rows, columns) = z.shape, self.box
        if height % rows or width % columns:
            raise ValueError(f"boxes of {rows}×{columns} places do not cover a grid of {height}×{width}.")
        boxes = z.reshape(batch, height // rows, rows, width // columns, columns, channels)
        means = (
            jnp.mean(z, axis=2, keepdims=True),
            jnp.mean(z, axis=1, keepdims=True),
            jnp.broadcast_to(jnp.mean(boxes, axis=(2, 4), keepdims=True), boxes.shape).reshape(z.shape),
        )
        return jnp.concatenate([z, *(jnp.broadcast_to(mean, z.shape) for mean in means)], axis=-1)
