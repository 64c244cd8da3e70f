"""The presets: runs that can be started by name."""

from pathlib import Path

from deq_jax.training.config import Config
from deq_jax.training.groups import ModelConfig, SolverConfig


def digits() -> Config:
    """The 1,797 scanned digits of scikit-learn, 8×8 pixels: no download.

    python train.py digits
    Expect 98.9% on the 360 images of the test split (seed 0) after a minute and a half on two CPU cores.
    """
    return Config(
        dataset="digits",
        out=Path("runs/digits"),
        epochs=12,
        batch_size=64,
        model=ModelConfig(pool=4),
        solver=SolverConfig(max_iter=40),
    )


def cifar10_tutorial() -> Config:
    """The chapter's run exactly: 64,842 parameters, no augmentation, Adam and a cosine over 50 epochs of batch 100.

    python train.py cifar10-tutorial
    The chapter reports 81.6% on the test split after a few hours on one GPU; that has not been repeated. The first 30
    steps were: 3 to 6 s each on two CPU cores.
    """
    return Config(dataset="cifar10", out=Path("runs/cifar10-tutorial"))


PRESETS = {"digits": digits, "cifar10-tutorial": cifar10_tutorial}
