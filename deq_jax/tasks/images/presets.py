"""The presets: runs that can be started by name."""

import dataclasses
from pathlib import Path

from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.groups import AugmentationConfig, DataConfig, EvaluationConfig, ModelConfig
from deq_jax.training.settings.solves import AdjointConfig, EarlyConfig, SolverConfig
from deq_jax.training.settings.update import OptimizerConfig, PenaltyConfig


def digits() -> Config:
    """The 1,797 scanned digits of scikit-learn, 8×8 pixels: no download.

    python train.py digits
    Expect 99.7% on the 360 images of the test split (seed 0) after a minute and a half on two cores of an AMD EPYC.
    """
    return Config(
        data=DataConfig("digits"),
        out=Path("runs/digits"),
        epochs=12,
        batch_size=64,
        model=ModelConfig(pool=4),
        solver=SolverConfig(max_iter=40),
    )


def cifar10_tutorial() -> Config:
    """The chapter's run: 64,842 parameters, no augmentation, Adam and a cosine over 50 epochs of batch 100.

    python train.py cifar10-tutorial
    The solves are this library's: lam is relative, and every sample stops by itself.
    The chapter reports 81.6% on the test split after a few hours on one GPU. Here 24 steps of it were run, and losses
    at a reduced size held beside the chapter's (benchmarks.parity); it has not been trained to the end.
    """
    return Config(data=DataConfig("cifar10"), out=Path("runs/cifar10-tutorial"))


def cifar10_fast() -> Config:
    """CIFAR-10 on two CPU cores: two stem layers make the image 8×8 before the equilibrium; flips and shifts.

    python train.py cifar10-fast
    It came to 87.7 and 87.6% on half of the test set (seeds 0 and 1, JPEG copies) after 51 and 59 minutes on two
    cores of an AMD EPYC.
    docs/recipe.md tells how it was found.
    """
    return Config(
        data=DataConfig("cifar10"),
        out=Path("runs/cifar10-fast"),
        epochs=34,
        label_smoothing=0.1,
        model=ModelConfig(
            kind="deq",
            channels=96,
            inner_channels=56,
            stem=(48, 64),
            stem_factors=(2, 2),
            downsampling="stride",
            cell="injection",
            pool=4,
        ),
        # Every solve of a batch costs what its slowest sample takes, so both are cut short; the penalty keeps the cell
        # so contractive that little is left to do, and the last steps solve as an evaluation does.
        solver=SolverConfig(max_iter=10),
        adjoint=AdjointConfig(tol=5e-2, max_iter=3),
        early=EarlyConfig(share=0.8, max_iter=4),
        penalty=PenaltyConfig(kind="contraction", weight=0.5, share=0.2),
        optimizer=OptimizerConfig(
            method="muon",
            schedule="onecycle",
            learning_rate=2e-2,
            final_learning_rate=1e-5,
            warmup=0.25,
            weight_decay=0.05,
        ),
        augmentation=AugmentationConfig(flip=True, shift=2),
        evaluation=EvaluationConfig(every=2, flip=True, max_iter=40),
    )


def cifar10_fast_explicit() -> Config:
    """The explicit counterpart of cifar10-fast: the same stem, head and recipe, ordinary layers for the equilibrium.

    python train.py cifar10-fast-explicit
    Its steps are cheaper, and it takes 60 epochs for about as many minutes. It came to 88.5 and 88.6% (seeds 0 and 1,
    the same data) after 52 and 55 minutes on two cores.
    """
    fast = cifar10_fast()
    return dataclasses.replace(
        fast,
        out=Path("runs/cifar10-fast-explicit"),
        epochs=60,
        model=dataclasses.replace(fast.model, kind="explicit", cell="pre-activation", inner_channels=32, layers=2),
        early=EarlyConfig(),
        penalty=PenaltyConfig(),
        evaluation=dataclasses.replace(fast.evaluation, every=4),
    )


def cifar10() -> Config:
    """CIFAR-10 on one GPU: one stem layer makes the image 16×16 before the equilibrium; 100 epochs.

    python train.py cifar10
    Its target is 87.1%, what the multiscale DEQ reports at 170 thousand parameters, without augmentation. It has not
    been trained to the end: 400 steps were run, on a CPU (--max-steps 400, seed 0, JPEG copies). All solves met their
    tolerance, in 3 evaluations forward and backward, and 65.9% of half of the test set were right.
    """
    fast = cifar10_fast()
    return dataclasses.replace(
        fast,
        out=Path("runs/cifar10"),
        epochs=100,
        model=dataclasses.replace(fast.model, inner_channels=64, stem=(64,), stem_factors=(2,), downsampling="average"),
        adjoint=AdjointConfig(),
        early=EarlyConfig(),
        average_decay=0.999,
        optimizer=dataclasses.replace(fast.optimizer, learning_rate=1e-2),
        evaluation=EvaluationConfig(flip=True, max_iter=40),
    )


def images() -> Config:
    """Images of your own, of any size: a folder with a folder for every class, an .npz, or a TFDS set.

    python train.py images --data.source folder:DIR
    The images become 64×64 (--data.size), three strided stem layers make them 8×8 before the equilibrium, and what it
    finds is averaged over the whole image. Meant for a few hundred to some ten thousand images.
    Of 500 drawn shapes, five classes of them, it told the 100 of the test split apart without a mistake (seed 0), after
    81 seconds on two cores of an AMD EPYC that other work shared.
    """
    fast = cifar10_fast()
    return dataclasses.replace(
        fast,
        data=DataConfig(size="64"),
        out=Path("runs/images"),
        epochs=30,
        batch_size=32,
        model=dataclasses.replace(
            fast.model, channels=64, inner_channels=64, stem=(24, 32, 48), stem_factors=(2, 2, 2), pool=None
        ),
        early=EarlyConfig(),  # solves are short from the start here, and compiling other steps would take longer
        augmentation=AugmentationConfig(flip=True, shift=4),
        evaluation=EvaluationConfig(every=2, flip=True, max_iter=40),
    )


PRESETS = {
    "digits": digits,
    "cifar10-tutorial": cifar10_tutorial,
    "cifar10-fast": cifar10_fast,
    "cifar10-fast-explicit": cifar10_fast_explicit,
    "cifar10": cifar10,
    "images": images,
}
