"""Every setting of a run that learns to foretell text.

The docstring under a field is its help on the command line: `python train.py --help`.
"""

from dataclasses import dataclass, field
from typing import Literal

from deq_jax.training.settings.checks import require_not_negative, require_positive
from deq_jax.training.settings.settings import Settings


@dataclass(frozen=True)
class DataConfig:
    """The text, and how it is cut into windows of segments."""

    source: str | None = None
    """A text file, of which the last tenth is tested on, or a folder, with all files below it: those below train and
    test where there are such folders, a tenth of the files at random where not. None: the source code of Python's own
    standard library."""
    unit: Literal["bytes", "tokens"] = "bytes"
    """What is foretold: bytes, of any file; or tokens, frequent words, signs and indents, of files in UTF-8."""
    vocabulary: int = 2048
    """Tokens, beside the 256 bytes that other words are spelled with."""
    length: int = 64
    """Positions of a segment, whose states are one equilibrium."""
    segments: int = 2
    """Segments of a window, read one after the other: each remembers those before it."""
    epoch: int = 6400
    """Windows between two looks at the test split; they begin anywhere in the text."""
    test: int = 512
    """Windows to evaluate on, evenly spread over the text."""
    split_seed: int = 0
    """Settles which files of a folder are tested on."""

    def __post_init__(self) -> None:
        """Raises ValueError on a number that is none."""
        require_positive(self, "vocabulary", "length", "segments", at_most=65_536)
        require_positive(self, "epoch", "test")
        require_not_negative(self, "split_seed", at_most=2**32 - 1)


@dataclass(frozen=True)
class ModelConfig:
    """The network: an embedding, a causal Transformer's equilibrium or its layers, and the embedding again."""

    kind: Literal["equilibrium", "tied", "layers"] = "equilibrium"
    """The equilibrium of one layer; the same layer so many times; or layers of weights of their own, an ordinary
    Transformer, by backpropagation both."""
    features: int = 128
    """Features of a position; even."""
    inner_features: int = 512
    """Features between the two layers behind the attention."""
    heads: int = 4
    """Heads of the attention; divides features."""
    layers: int = 4
    """Of the two explicit kinds: how many, or how often."""
    memory: int = 64
    """Positions that a segment remembers of those before it."""
    dropout: float = 0.0
    """Share of the features that is dropped in training, the same in all evaluations of a solve."""

    def __post_init__(self) -> None:
        """Raises ValueError on a setting that no network can have."""
        require_positive(self, "features", "inner_features", "heads", "layers", at_most=65_536)
        require_not_negative(self, "memory", at_most=65_536)
        require_not_negative(self, "dropout")
        if self.dropout >= 1:
            raise ValueError(f"dropout must be below 1, but is {self.dropout:g}")
        if self.features % self.heads or self.features % 2:
            raise ValueError(
                f"features must be even, and heads divide them, but features is {self.features} and heads {self.heads}"
            )


@dataclass(frozen=True)
class Config(Settings):
    """A training run on text: on which, with what network, for how long, and where to keep it."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        """Raises ValueError on a run that cannot be."""
        super().__post_init__()
        if self.penalty.weight and self.model.kind != "equilibrium":
            raise ValueError(f"penalty.weight needs an equilibrium, but model.kind is {self.model.kind}")
