"""The presets: runs that can be started by name."""

import dataclasses
from pathlib import Path

from deq_jax.tasks.images.cifar10 import (
    cifar10,
    cifar10_fast,
    cifar10_fast_explicit,
    cifar10_tutorial,
    monotone_cifar10,
    multiscale,
    multiscale_tiny,
)
from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.groups import AugmentationConfig, DataConfig, EvaluationConfig, ModelConfig
from deq_jax.training.settings.solves import EarlyConfig, SolverConfig
from deq_jax.training.settings.update import OptimizerConfig, PenaltyConfig


def digits() -> Config:
    """The 1,797 scanned digits of scikit-learn, 8×8 pixels: no download.

    python train.py digits
    Expect 98.9 to 99.7% on the 360 images of the test split (seeds 0 to 4, each on one core of an AMD EPYC), and one
    to three minutes on two cores where the compiler's cache is empty.
    """
    return Config(
        data=DataConfig("digits"),
        out=Path("runs/digits"),
        epochs=12,
        batch_size=64,
        label_smoothing=0.1,
        average_decay=0.98,
        model=ModelConfig(pool=4),
        solver=SolverConfig(max_iter=40),
        penalty=PenaltyConfig(kind="contraction", weight=0.5, share=0.2),
        optimizer=OptimizerConfig(
            method="muon", schedule="onecycle", learning_rate=1e-2, final_learning_rate=1e-5, warmup=0.2
        ),
        augmentation=AugmentationConfig(shift=1, padding="zero"),
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


def monotone() -> Config:
    """The digits by a monotone equilibrium of one matrix, 21,673 parameters, whose answers carry a certificate.

    python train.py monotone
    Expect 97.5% on the 360 images of the test split (seeds 0 to 2), all solves of the run converged, and 67.8 to 68.9%
    certain to stay right wherever an image moves by 0.2 (Euclidean norm, pixels of 0 to 1).
    """
    return Config(
        data=DataConfig("digits"),
        out=Path("runs/monotone"),
        epochs=60,
        batch_size=64,
        model=ModelConfig(kind="deq", cell="dense-monotone", channels=87, m=1.0),
        solver=SolverConfig(method="peaceman-rachford", max_iter=100),
        optimizer=OptimizerConfig(learning_rate=5e-3),
        evaluation=EvaluationConfig(every=10, tol=1e-5, max_iter=200, epsilon=0.2),
    )


PRESETS = {
    "digits": digits,
    "cifar10-tutorial": cifar10_tutorial,
    "cifar10-fast": cifar10_fast,
    "cifar10-fast-explicit": cifar10_fast_explicit,
    "cifar10": cifar10,
    "images": images,
    "monotone": monotone,
    "monotone-cifar10": monotone_cifar10,
    "multiscale": multiscale,
    "multiscale-tiny": multiscale_tiny,
}
