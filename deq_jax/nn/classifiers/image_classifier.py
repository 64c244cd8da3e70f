"""Image classifiers in three parts: a stem, an equilibrium or the ordinary layers in its place, and a head."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree

from deq_jax.gradients.adjoint import AdjointReport
from deq_jax.nn.computed import computed
from deq_jax.nn.deq import DEQ
from deq_jax.nn.initial_state import initial_state
from deq_jax.nn.layers.conv import uniform_by_fan_in
from deq_jax.nn.layers.convolution import Image
from deq_jax.nn.layers.normalisation import BatchNorm
from deq_jax.nn.layers.pooling import average_pool, check_divides
from deq_jax.solution import Solution


class Layers(nnx.Module):
    """Cells of weights of their own, each evaluated once as an ordinary layer: ``z_{k+1} = f_k.as_layer(z_k)``, z₀ = x.

    The explicit network that a DEQ is to be measured against. A cell without ``as_layer`` has an injection of its own,
    ``z_{k+1} = f_k(z_k, x)``, from where its solve would start. A network of one cell, evaluated so many times, is a
    [`deq_jax.nn.DEQ`][] with ``unroll``.

    Args:
        cells: first to last, of one kind; states and injection are images ``[batch, height, width, channels]``, or what
            else the cells take.

    Source: He et al., "Identity mappings in deep residual networks", 2016, of which these are blocks; the chapter,
    "Deep networks and fixed point equations", for those with an injection.
    """

    def __init__(self, cells: Sequence[Any]):
        self.cells = nnx.List(cells)

    def __call__(self, x: PyTree, *, report: AdjointReport | None = None) -> Solution:
        """The last layer's output in the form of a solution: as many evaluations as layers, no residual (infinite)."""
        del report
        takes_injection = not hasattr(self.cells[0], "as_layer")
        z = initial_state(self.cells[0], x) if takes_injection else x
        for cell in self.cells:
            z = cell(z, x) if takes_injection else cell.as_layer(z)
        return computed(z, len(self.cells))


Body = DEQ | Layers
"""What can stand between a stem and a head."""


class Head(nnx.Module):
    """Batch norm, average pooling, linear: ``[batch, num_classes]``.

    Args:
        shape: height, width and channels of what comes in.
        num_classes: classes to tell apart.
        pool: side of the pooling's windows; None for the whole image.
        rngs: where the initial values are drawn from; PyTorch's defaults.

    Raises:
        ValueError: ``pool`` does not divide height and width.

    Source: the chapter, "Training your DEQ", is the case of ``pool=8``.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, *, pool: int | None = None, rngs: nnx.Rngs):
        height, width, channels = shape
        if pool is not None:
            check_divides(pool, height, width)
        self.pool = pool
        self.shape = shape
        self.norm = BatchNorm(channels)
        features = channels * (1 if pool is None else (height // pool) * (width // pool))
        uniform = uniform_by_fan_in(features)
        self.linear = nnx.Linear(features, num_classes, kernel_init=uniform, bias_init=uniform, rngs=rngs)

    def __call__(self, z: Image) -> Float[Array, "batch num_classes"]:
        """Logits.

        Raises:
            ValueError: ``z`` is of another size than the head was made for, where that matters: with a ``pool``.
        """
        if self.pool is not None and z.shape[1:] != tuple(self.shape):
            raise ValueError(
                f"the head takes [batch, {', '.join(map(str, self.shape))}], got {list(z.shape)}. Give images of the "
                "size that the model was made for, or pool the whole image: pool=None."
            )
        y = self.norm(z)
        pooled = jnp.mean(y, axis=(1, 2)) if self.pool is None else average_pool(y, self.pool)
        return self.linear(pooled.reshape(z.shape[0], -1))


class ImageClassifier(nnx.Module):
    """A stem, an equilibrium layer, and a head: ``[batch, num_classes]``.

    [`deq_jax.nn.DEQClassifier`][] with parts to choose. With [`deq_jax.nn.Layers`][] in the equilibrium's place it is
    the explicit network of the same family.

    Args:
        stem: makes the injection from images, such as a [`deq_jax.nn.Stem`][].
        body: the equilibrium layer, or ordinary layers.
        head: makes logits from the body's output, such as a [`deq_jax.nn.Head`][].

    Source: the chapter, "Training your DEQ".
    """

    def __init__(self, stem: Any, body: Body, head: Any):
        self.stem = stem
        self.body = body
        self.head = head

    def __call__(
        self, images: Image, *, report: AdjointReport | None = None
    ) -> tuple[Float[Array, "batch num_classes"], Solution]:
        """Logits of ``images``, floating-point ``[batch, height, width, channels]``, and the equilibrium they rest on.

        ``report``: see [`deq_jax.adjoint_report`][].
        """
        solution = self.solve(self.inject(images), report=report)
        return self.classify(solution.value), solution

    @property
    def cell(self) -> Any:
        """The cell ``f(z, x)`` of the equilibrium; None where there are only ordinary layers."""
        return self.body.cell if isinstance(self.body, DEQ) and self.body.unroll is None else None

    def inject(self, images: Image) -> PyTree:
        """The injection ``x``."""
        return self.stem(images)

    def solve(self, x: PyTree, *, report: AdjointReport | None = None) -> Solution:
        """The equilibrium for an injection."""
        return self.body(x, report=report)

    def classify(self, z: PyTree) -> Float[Array, "batch num_classes"]:
        """Logits of an equilibrium."""
        return self.head(z)
