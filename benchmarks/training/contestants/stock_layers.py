"""deq_jax around a cell of Flax's own ``nnx.Conv`` and ``nnx.GroupNorm``."""

from pathlib import Path

from benchmarks.training.contestants.jax_model import JaxContestant
from benchmarks.training.contestants.ours import layer
from benchmarks.training.worker import serve


def build(folder: Path) -> JaxContestant:
    """The contestant "deq_jax, stock layers"."""
    return JaxContestant(folder, layer, stock=True)


if __name__ == "__main__":
    serve(build)
