"""The groups of settings that are about images: which, the network, what is done to them, and how it is evaluated.

The docstring under a field is its help on the command line: `python train.py --help`.
"""

import re
from dataclasses import dataclass
from typing import Literal

from deq_jax.training.settings.checks import require_not_negative, require_positive
from deq_jax.training.settings.solves import EvaluationSettings

_MOST_CHANNELS = 65_536


@dataclass(frozen=True)
class DataConfig:
    """The images: where they come from, and the form that they are brought to."""

    source: str | None = None
    """digits, which ship with scikit-learn; cifar10; folder:DIR of a folder of image files for every class, or of such
    folders below train and test; npz:FILE of images and labels; tfds:NAME, a data set of TFDS."""
    size: str | None = None
    """Side of the images in pixels, or HEIGHTxWIDTH: they are resized, and cropped around the centre. None: as they
    are, all of one size."""
    channels: Literal[1, 3] | None = None
    """1: grey, 3: colour. None: grey where the first image of every class is."""
    bad_files: Literal["refuse", "skip"] = "refuse"
    """What to do about files that are no images, or damaged ones."""
    in_memory: Literal["auto", "yes", "no"] = "auto"
    """Hold the decoded images in memory, or decode every batch when its turn comes. auto: up to 2 GiB a split."""
    workers: int | None = None
    """Threads that decode. None: as many as there are cores."""

    def __post_init__(self) -> None:
        """Raises ValueError on a source or size that is none."""
        if self.workers is not None:
            require_positive(self, "workers", at_most=1_000)
        kind, place = self.kind_and_place
        if kind not in ("", "digits", "folder", "npz", "tfds") or ((kind in ("folder", "npz", "tfds")) != bool(place)):
            raise ValueError(
                f"unknown source '{self.source}'; there are: digits, cifar10, folder:DIR, npz:FILE, tfds:NAME"
            )
        if self.size is not None and not re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3})?", self.size):
            raise ValueError(f"size must be a side in pixels or HEIGHTxWIDTH, such as 64 or 48x64, but is {self.size}")

    @property
    def kind_and_place(self) -> tuple[str, str]:
        """The source in two: ("folder", DIR), ("npz", FILE), ("tfds", NAME), ("digits", "") or ("", "")."""
        kind, _, place = (self.source or "").partition(":")
        return ("tfds", kind) if self.source == "cifar10" else (kind, place)

    @property
    def height_width(self) -> tuple[int, int] | None:
        """The size in numbers."""
        if self.size is None:
            return None
        height, _, width = self.size.partition("x")
        return int(height), int(width or height)


Cell = Literal[
    "resnet", "pre-activation", "injection", "multiscale", "dense-monotone", "conv-monotone", "tiers-monotone"
]


@dataclass(frozen=True)
class ModelConfig:
    """The classifier: a stem, one equilibrium of a cell or ordinary layers in its place, pooling, a linear head."""

    kind: Literal["chapter", "deq", "explicit", "tied"] = "chapter"
    """The chapter's; one with a stem before the equilibrium; or its explicit counterparts, of ordinary layers with
    weights of their own, or of one cell evaluated that often."""
    channels: int = 48
    """Channels of the equilibrium state z, and of the ordinary layers."""
    inner_channels: int = 64
    """Channels between the cell's two convolutions."""
    num_groups: int = 8
    """Groups of the cell's group normalisations; divides both channel counts."""
    kernel_size: int = 3
    """Side of every convolution's kernel, in pixels; odd."""
    pool: int | None = 8
    """Side of the average-pooling window before the head, in pixels; divides the state's side. None: the whole."""
    cell: Cell = "resnet"
    """The chapter's residual cell; one with norm and ReLU before each convolution, and the injection added last; that
    with weights for the injection alone, outside the solve; one of several resolutions, the tiers; or a monotone cell,
    of one matrix or one convolution of so many channels, or of tiers."""
    max_gain: float | None = None
    """Bound of each output channel's kernel norm in the cell; None: plain kernels."""
    stem: tuple[int, ...] = ()
    """Channels of the stem's layers (convolution, norm, ReLU) before the convolution that makes the injection."""
    stem_factors: tuple[int, ...] = ()
    """By how much each of the stem's layers makes the image smaller."""
    downsampling: Literal["average", "max", "stride"] = "average"
    """How the stem makes images smaller."""
    layers: int = 2
    """Ordinary layers of the explicit counterparts."""
    m: float = 1.0
    """How monotone a monotone cell is."""
    tiers: tuple[int, ...] = ()
    """Channels of the tiers of a multiscale or monotone cell, the finest first; the sides of each are half of those
    before."""
    expansion: int = 5
    """How many times as many channels a multiscale cell's blocks have between their convolutions."""
    bottlenecks: tuple[int, ...] = ()
    """Channels within the bottleneck that the head of a multiscale cell has for each tier."""
    features: int = 200
    """Channels of that head's last convolution."""
    dropout: float = 0.0
    """Share of the channels of a multiscale cell's blocks that is dropped in training, the same in a whole solve."""
    mean: tuple[float, ...] = ()
    """Taken off each channel of the images, of 0 to 1, before a multiscale or monotone cell. None: 0."""
    deviation: tuple[float, ...] = ()
    """What each channel is then divided by. None: 1."""

    def __post_init__(self) -> None:
        """Raises ValueError on a setting that no model can have."""
        require_positive(self, "channels", "inner_channels", "num_groups", "features", at_most=_MOST_CHANNELS)
        require_positive(self, "kernel_size", "layers", "expansion", at_most=1_000)
        require_positive(self, "m")
        for name in ("pool", "max_gain"):
            if getattr(self, name) is not None:
                require_positive(self, name)
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, but is {self.kernel_size}")
        if self.kind == "chapter" and (self.stem or self.cell != "resnet" or self.max_gain or self.pool is None):
            raise ValueError("kind chapter has no stem, cell or max_gain to choose, and a pool; choose kind deq")
        self._require_stem()
        self._require_parts()
        if self.kind == "explicit" and self.cell == "injection":
            raise ValueError("kind explicit has layers without an injection; choose cell pre-activation or resnet")
        widths = [("channels", self.channels), ("inner_channels", self.inner_channels)]
        if self.cell == "multiscale":
            widths = [("tiers", width) for width in self.tiers]
        for name, width in [] if self.is_monotone else widths:
            if width % self.num_groups:
                raise ValueError(f"num_groups must divide {name}, but {width} / {self.num_groups} leaves a remainder")

    @property
    def is_monotone(self) -> bool:
        """Whether the cell is a monotone one."""
        return self.cell.endswith("-monotone")

    def _require_stem(self) -> None:
        if len(self.stem) != len(self.stem_factors):
            raise ValueError(
                f"stem_factors must be as many as stem, but there are {len(self.stem_factors)} for {len(self.stem)}"
            )
        if min((*self.stem, *self.stem_factors), default=1) < 1:
            raise ValueError("stem and stem_factors must be positive")
        if max((*self.stem, *self.stem_factors), default=1) > _MOST_CHANNELS:
            raise ValueError(f"stem and stem_factors must be at most {_MOST_CHANNELS:,}")
        if self.downsampling != "average" and not self.stem:
            raise ValueError(f"downsampling is {self.downsampling}, but there is no stem to make images smaller")
        if self.is_monotone and self.stem:
            raise ValueError(f"stem does not go with cell {self.cell}")

    def _require_parts(self) -> None:
        has_tiers, is_multiscale = self.cell in ("multiscale", "tiers-monotone"), self.cell == "multiscale"
        if self.max_gain and (is_multiscale or self.is_monotone):
            raise ValueError(f"max_gain does not go with cell {self.cell}")
        if bool(self.tiers) != has_tiers:
            raise ValueError(
                f"tiers are for cell multiscale and tiers-monotone alone, and needed there, but cell is {self.cell}"
            )
        if (self.mean or self.deviation) and not (is_multiscale or self.is_monotone):
            raise ValueError(f"mean and deviation go with a multiscale or monotone cell, but cell is {self.cell}")
        if min((*self.tiers, *self.bottlenecks, *self.deviation), default=1) <= 0:
            raise ValueError("tiers, bottlenecks and deviation must be positive")
        if len(self.bottlenecks) != (len(self.tiers) if is_multiscale else 0):
            raise ValueError(
                f"bottlenecks are for cell multiscale alone, one for each of the tiers, but there are "
                f"{len(self.bottlenecks)} for {len(self.tiers)} tiers, and cell is {self.cell}"
            )
        if not 0 <= self.dropout < 1 or (self.dropout and not is_multiscale):
            raise ValueError(
                f"dropout must be a share from 0 to below 1, and is for cell multiscale alone, but is "
                f"{self.dropout:g}, and cell is {self.cell}"
            )


@dataclass(frozen=True)
class AugmentationConfig:
    """What is done to the images of a training step, at random, each image on its own."""

    flip: bool = False
    """Mirror one image in two, left to right."""
    shift: int = 0
    """Move by up to this many pixels along each side."""
    padding: Literal["reflect", "zero"] = "reflect"
    """What moves in from beyond the edge."""

    def __post_init__(self) -> None:
        """Raises ValueError on a shift that is none."""
        require_not_negative(self, "shift")


@dataclass(frozen=True)
class EvaluationConfig:
    """How the test split is evaluated; what is left out of a solve's settings is as in training."""

    every: int = 1
    """Epochs from one evaluation to the next; the run also ends with one."""
    flip: bool = False
    """Average the logits of an image and its mirror image."""
    tol: float | None = None
    """Relative residual at which a sample is done."""
    atol: float | None = None
    """As solver.atol."""
    max_iter: int | None = None
    """Evaluations of f at most."""
    epsilon: float | None = None
    """Count as certified_accuracy the images that are right, and certain to stay so wherever they are moved by no more
    than this, in the Euclidean norm of pixels of 0 to 1. None: do not. For an equilibrium of a monotone cell."""
    radius_images: int = 16
    """Test images whose Jacobian's spectral radius is estimated at their equilibria; 0: none."""

    def __post_init__(self) -> None:
        """Raises ValueError on a setting that no evaluation can use."""
        require_not_negative(self, "radius_images")  # under its own name
        if self.epsilon is not None:
            require_positive(self, "epsilon")
            if self.flip:
                raise ValueError("epsilon certifies an image's own logits, but flip averages them with another's")
        self.of_any_task()

    def of_any_task(self) -> EvaluationSettings:
        """What a run, which knows no images, sees of them."""
        return EvaluationSettings(self.every, self.tol, self.atol, self.max_iter, self.radius_images)
