"""torchdeq as in ``torchdeq_ift``, with a smaller ``lam``.

Its default, 1e-4, is added to squares of residuals: those of the backward solve of a mean loss are far smaller.
"""

import functools
import importlib.metadata
from pathlib import Path

from benchmarks.training.contestants.torch_model import TorchContestant
from benchmarks.training.contestants.torchdeq_ift import Layer
from benchmarks.training.worker import serve

LAM = 1e-10


def build(folder: Path) -> TorchContestant:
    """The contestant "torchdeq-small-lam"."""
    return TorchContestant(folder, functools.partial(Layer, lam=LAM), torchdeq=importlib.metadata.version("torchdeq"))


if __name__ == "__main__":
    serve(build)
