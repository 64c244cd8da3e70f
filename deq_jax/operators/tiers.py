"""Images of several resolutions, each of which acts on itself and on the next: inverted by substitution."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deq_jax.operators.circulant import Image, Resized, filtered
from deq_jax.operators.matrices import adjoint_of, norm_bound
from deq_jax.operators.operator import Held
from deq_jax.settings import Scalar

Images = tuple[Float[Array, "batch _ _ _"], ...]
"""From the finest to the coarsest."""


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["strided", "square"], meta_fields=["half", "side", "phases"]
)
@dataclasses.dataclass(frozen=True)
class Link:
    """``z ↦ −2 Aᵀ P S z``, of one tier into the next: ``S`` has a stride of 2, and ``P`` pads with zeros.

    Args:
        strided: the symbol of ``S``, of images ``[batch, height, width, channels]`` in two phases.
        square: that of ``A``.
        half: height and width of what ``S`` gives.
        side: those of the next tier.
        phases: those of ``square``.

    Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, section 4.2 and appendix D.
    """

    strided: Held
    square: Held
    half: tuple[int, int]
    side: tuple[int, int]
    phases: int

    def __call__(self, z: Image) -> Resized:
        """From the finer to the coarser."""
        (height, width), (rows, columns) = self.half, self.side
        y = jnp.pad(
            filtered(self.strided, z, phases=(2, 1)), ((0, 0), (0, rows - height), (0, columns - width), (0, 0))
        )
        return -2 * filtered(adjoint_of(self.square), y, phases=(self.phases, self.phases))

    def transposed(self, z: Image) -> Resized:
        """From the coarser to the finer."""
        height, width = self.half
        y = filtered(self.square, z, phases=(self.phases, self.phases))[:, :height, :width]
        return -2 * filtered(adjoint_of(self.strided), y, phases=(1, 2))

    def norm(self) -> Float[Array, ""]:
        """An upper bound of its spectral norm."""
        return 2 * norm_bound(self.strided) * norm_bound(self.square)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["tiers", "links", "m"], meta_fields=["is_transposed"])
@dataclasses.dataclass(frozen=True)
class Tiers:
    """An operator on a tuple of images ``[batch, height, width, channels]``, the finest first, triangular in tiers.

    ``(W z)ᵢ = Wᵢ zᵢ + Lᵢ₋₁ zᵢ₋₁``: every tier acts on itself, and by a link on the next coarser one.

    Args:
        tiers: each tier's own operator ``Wᵢ``, or where it is transposed, ``Wᵢᵀ``.
        links: ``Lᵢ``, from tier ``i`` into ``i + 1``; one fewer.
        m: how monotone the whole is, positive.
        is_transposed: whether it acts from coarse to fine.

    Source: Winston and Kolter, "Monotone operator equilibrium networks", 2020, section 4.2.
    """

    tiers: Held
    links: Held
    m: Held
    is_transposed: bool = False

    def __call__(self, z: Images) -> Images:
        """``W z`` of every sample."""
        own = [tier(image) for tier, image in zip(self.tiers, z, strict=True)]
        return self._in_order(lambda i, before: own[i] if before is None else own[i] + before, z)

    def transposed(self) -> "Tiers":
        """``Wᵀ``."""
        tiers = tuple(tier.transposed() for tier in self.tiers)
        return dataclasses.replace(self, tiers=tiers, is_transposed=not self.is_transposed)

    def resolvent(self, alpha: Scalar) -> Callable[[Images], Images]:
        """``v ↦ (I + alpha (I − W))⁻¹ v``, one tier after the other."""
        inverses = [tier.resolvent(alpha) for tier in self.tiers]

        def solve(v: Images) -> Images:
            return self._in_order(lambda i, before: inverses[i](v[i] if before is None else v[i] + alpha * before))

        return solve

    def norm(self) -> Float[Array, ""]:
        """An upper bound of ``‖I − W‖₂``: that of the matrix of the blocks' norms."""
        blocks = jnp.diag(jnp.stack([tier.norm() for tier in self.tiers]))
        for i, link in enumerate(self.links):
            blocks = blocks.at[i + 1, i].set(link.norm())
        return norm_bound(blocks)

    def _in_order(self, step: Callable[[int, Image | None], Image], given: Images | None = None) -> Images:
        """The tiers in the order in which they act: ``step(i, link)`` of what comes from the one before.

        That is the link's value of the tier before as given, or where none is, as the step has made it.
        """
        count = len(self.tiers)
        order = range(count - 1, -1, -1) if self.is_transposed else range(count)
        made: dict[int, Image] = {}
        before: int | None = None
        for i in order:
            if before is None:
                made[i] = step(i, None)
            else:
                source = (made if given is None else given)[before]
                made[i] = step(
                    i, self.links[i].transposed(source) if self.is_transposed else self.links[before](source)
                )
            before = i
        return tuple(made[i] for i in range(count))
