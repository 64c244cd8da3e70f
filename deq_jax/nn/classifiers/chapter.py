"""The chapter's image classifier around one equilibrium layer."""

from flax import nnx
from jaxtyping import Array, Float

from deq_jax.gradients.adjoint import Adjoint, AdjointReport, Solver
from deq_jax.nn.cells.residual import ResNetCell
from deq_jax.nn.deq import DEQ
from deq_jax.nn.layers.conv import Conv, Resized, uniform_by_fan_in
from deq_jax.nn.layers.convolution import Image
from deq_jax.nn.layers.normalisation import BatchNorm
from deq_jax.nn.layers.pooling import average_pool, check_divides
from deq_jax.solution import Solution
from deq_jax.solvers import anderson


class DEQClassifier(nnx.Module):
    """Convolution, batch norm, ``DEQ(ResNetCell)``, batch norm, average pooling, linear: ``[batch, num_classes]``.

    The defaults are the chapter's model for CIFAR-10, 64,842 parameters, with this library's solver and its at most 50
    evaluations, where the chapter has 25. Stem and head start as PyTorch's do, uniform in ±1/√fan_in.

    Args:
        image_shape: height, width and channels of an image.
        num_classes: classes to tell apart.
        channels: channels of the state.
        inner_channels: channels inside the cell.
        num_groups: groups of each group normalisation.
        kernel_size: side of the square kernels, odd.
        pool: side of the average pooling's window; must divide height and width.
        solver: finds the equilibrium; see [`deq_jax.nn.DEQ`][].
        adjoint: how the adjoint equation is met; None for the same solver.
        rngs: where the initial values are drawn from.

    Raises:
        ValueError: ``pool`` does not divide the image, ``num_groups`` not the channels, or ``kernel_size`` is even.

    Source: the chapter, "Training your DEQ".
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (32, 32, 3),
        num_classes: int = 10,
        *,
        channels: int = 48,
        inner_channels: int = 64,
        num_groups: int = 8,
        kernel_size: int = 3,
        pool: int = 8,
        solver: Solver = anderson,
        adjoint: Adjoint | None = None,
        rngs: nnx.Rngs,
    ):
        height, width, image_channels = self.image_shape = image_shape
        check_divides(pool, height, width)
        self.pool = pool
        self.stem = Conv(image_channels, channels, kernel_size, rngs=rngs)
        self.stem_norm = BatchNorm(channels)
        cell = ResNetCell(channels, inner_channels, num_groups=num_groups, kernel_size=kernel_size, rngs=rngs)
        self.deq = DEQ(cell, solver=solver, adjoint=adjoint)
        self.head_norm = BatchNorm(channels)
        features = (height // pool) * (width // pool) * channels
        uniform = uniform_by_fan_in(features)
        self.head = nnx.Linear(features, num_classes, kernel_init=uniform, bias_init=uniform, rngs=rngs)

    def __call__(
        self, images: Image, *, report: AdjointReport | None = None
    ) -> tuple[Float[Array, "batch num_classes"], Solution]:
        """Logits of ``images``, floating-point ``[batch, height, width, channels]``, and the equilibrium they rest on.

        ``report``: see [`deq_jax.adjoint_report`][].
        """
        solution = self.solve(self.inject(images), report=report)
        return self.classify(solution.value), solution

    @property
    def cell(self) -> nnx.Module:
        """The cell ``f(z, x)`` of the equilibrium."""
        return self.deq.cell

    def inject(self, images: Image) -> Resized:
        """The injection ``x``: convolution and batch norm.

        Raises:
            ValueError: the images are not ``[batch, *image_shape]``.
        """
        if images.shape[1:] != tuple(self.image_shape):
            raise ValueError(
                f"the classifier takes images [batch, {', '.join(map(str, self.image_shape))}], got "
                f"{list(images.shape)}. Channels come last; one image is a batch of 1, image[None]."
            )
        return self.stem_norm(self.stem(images))

    def solve(self, x: Image, *, report: AdjointReport | None = None) -> Solution:
        """The equilibrium for an injection."""
        return self.deq(x, report=report)

    def classify(self, z: Image) -> Float[Array, "batch num_classes"]:
        """Logits of an equilibrium: batch norm, average pooling, linear."""
        return self.head(self._pooled(self.head_norm(z)))

    def _pooled(self, x: Image) -> Float[Array, "batch features"]:
        return average_pool(x, self.pool).reshape(x.shape[0], -1)
