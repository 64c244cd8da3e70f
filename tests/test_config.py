import dataclasses
from pathlib import Path

import pytest

from deq_jax.tasks.images.config import Config, located, settings_of
from deq_jax.tasks.images.groups import AugmentationConfig, DataConfig, EvaluationConfig, ModelConfig
from deq_jax.tasks.images.presets import PRESETS
from deq_jax.training.settings.solves import AdjointConfig, EarlyConfig, EvaluationSettings, SolverConfig, filled_from
from deq_jax.training.settings.update import OptimizerConfig, PenaltyConfig


def test_cifar10_tutorial_is_the_chapters_run():
    config = PRESETS["cifar10-tutorial"]()
    assert config.model == ModelConfig(channels=48, inner_channels=64, num_groups=8, kernel_size=3, pool=8)
    assert config.solver == SolverConfig(method="anderson", tol=1e-2, max_iter=25, m=5, lam=1e-4, beta=1.0)
    assert filled_from(config.adjoint, config.solver) == config.solver
    assert config.optimizer == OptimizerConfig(learning_rate=1e-3, final_learning_rate=1e-6)
    assert (config.dataset, config.batch_size, config.epochs) == ("cifar10", 100, 50)


def multiscale(**changes):
    fitting = {"kind": "deq", "cell": "multiscale", "tiers": (8, 8), "bottlenecks": (4, 4)}
    return ModelConfig(**fitting | changes)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_its_command_and_writes_to_its_own_folder(name):
    assert f"python train.py {name}" in PRESETS[name].__doc__
    assert PRESETS[name]().out == Path("runs") / name


def test_the_adjoint_follows_the_forward_solve_but_for_what_is_set():
    solver = SolverConfig(tol=1e-4, max_iter=9, m=3)
    assert filled_from(AdjointConfig(tol=1e-1), solver) == dataclasses.replace(solver, tol=1e-1)


@pytest.mark.parametrize("group", [SolverConfig, AdjointConfig])
@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("tol", 0.0),
        ("tol", -1e-3),
        ("tol", float("nan")),
        ("tol", float("inf")),
        ("max_iter", 0),
        ("m", -1),
        ("beta", 0.0),
    ],
)
def test_solver_settings_must_be_positive(group, name, bad):
    with pytest.raises(ValueError, match=f"^{name} must be positive, but is {bad}$"):
        group(**{name: bad})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(DataConfig("digits"), Path("x"), epochs=0), "epochs must be positive, but is 0"),
        (lambda: Config(DataConfig("digits"), Path("x"), batch_size=-1), "batch_size must be positive, but is -1"),
        (lambda: Config(DataConfig("digits"), Path("x"), max_steps=0), "max_steps must be positive, but is 0"),
        (
            lambda: Config(DataConfig("digits"), Path("x"), checkpoint_minutes=0.0),
            "checkpoint_minutes must be positive",
        ),
        (lambda: Config(DataConfig("digits"), Path("x"), seed=-1), "seed must not be negative, but is -1"),
        (
            lambda: Config(DataConfig("digits"), Path("x"), seed=2**32),
            "seed must be at most 4,294,967,295, but is 4294967296",
        ),
        (
            lambda: Config(DataConfig("digits"), Path("x"), seed=10**400),
            "seed must be at most 4,294,967,295, but is a number of many",
        ),
        (lambda: Config(DataConfig("digits"), Path("x"), epochs=10**9), "epochs must be at most 1,000,000"),
        (lambda: Config(DataConfig("digits"), Path("x"), max_steps=2**31), "max_steps must be at most 2,147,483,647"),
        (lambda: SolverConfig(max_iter=10**20), "max_iter must be at most 1,000,000, but is 100000000000000000000"),
        (lambda: SolverConfig(m=100_000), "m must be at most 1,000, but is 100000"),
        (lambda: SolverConfig(tol=1e-300), "tol must be at least 1.2e-38"),
        (lambda: SolverConfig(beta=1e300), "beta must be at most"),
        (lambda: ModelConfig(channels=10**9), "channels must be at most 65,536"),
        (lambda: Config(DataConfig("digits"), Path("x"), epochs=-(10**400)), "epochs must be positive"),
        (lambda: SolverConfig(lam=-1.0), "lam must not be negative"),
        (lambda: ModelConfig(channels=0), "channels must be positive"),
        (lambda: ModelConfig(channels=30), "num_groups must divide channels"),
        (lambda: ModelConfig(kernel_size=4), "kernel_size must be odd, but is 4"),
        (lambda: ModelConfig(pool=0), "pool must be positive"),
        (lambda: ModelConfig(kind="deq", max_gain=-1.0), "max_gain must be positive"),
        (lambda: ModelConfig(kind="deq", stem=(8,)), "stem_factors must be as many as stem, but there are 0 for 1"),
        (lambda: ModelConfig(kind="deq", stem=(8,), stem_factors=(0,)), "stem and stem_factors must be positive"),
        (lambda: ModelConfig(cell="pre-activation"), "kind chapter has no stem, cell or max_gain to choose"),
        (lambda: ModelConfig(kind="explicit", cell="injection"), "kind explicit has layers without an injection"),
        (lambda: ModelConfig(kind="deq", cell="multiscale"), "tiers are for cell multiscale and tiers-monotone alone"),
        (lambda: ModelConfig(kind="deq", tiers=(8, 8)), "tiers are for cell multiscale and tiers-monotone alone"),
        (lambda: multiscale(tiers=(8, 12)), "num_groups must divide tiers, but 12 / 8"),
        (lambda: multiscale(bottlenecks=(4,)), "one for each of the tiers, but there are 1 for 2 tiers"),
        (lambda: multiscale(dropout=1.0), "dropout must be a share from 0 to below 1"),
        (lambda: ModelConfig(kind="deq", dropout=0.1), "dropout .* is for cell multiscale alone"),
        (lambda: multiscale(max_gain=1.0), "max_gain does not go with cell multiscale"),
        (lambda: multiscale(expansion=0), "expansion must be positive"),
        (lambda: ModelConfig(kind="deq", mean=(0.5,)), "mean and deviation go with a multiscale or monotone cell"),
        (lambda: AdjointConfig(damping=1.5), "damping must not exceed 1, but is 1.5"),
        (lambda: AdjointConfig(steps=0), "steps must be positive"),
        (lambda: EarlyConfig(share=1.5), "share must be a share from 0 to 1, but is 1.5"),
        (lambda: EarlyConfig(share=0.5, max_iter=0), "max_iter must be positive"),
        (lambda: EarlyConfig(share=0.5), "share is 0.5, but none of adjoint_kind, max_iter and unroll is set"),
        (lambda: EarlyConfig(max_iter=5), "share must be positive where adjoint_kind, max_iter or unroll is set"),
        (lambda: EarlyConfig(unroll=5), "share must be positive where"),
        (lambda: EarlyConfig(share=0.5, unroll=0), "unroll must be positive"),
        (lambda: EarlyConfig(share=0.5, unroll=5, max_iter=5), "unroll leaves no solve that adjoint_kind or max_iter"),
        (lambda: EarlyConfig(adjoint_kind="phantom"), "share must be positive where"),
        (lambda: SolverConfig(tol=1.0), "tol must be below 1, but is 1"),
        (lambda: SolverConfig(max_iter=1), "max_iter must be at least 2, but is 1"),
        (lambda: EvaluationConfig(tol=50.0), "tol must be below 1, but is 50"),
        (lambda: AdjointConfig(max_iter=1), "max_iter must be at least 2"),
        (lambda: ModelConfig(downsampling="max"), "downsampling is max, but there is no stem"),
        (lambda: PenaltyConfig(weight=1.0, share=0.0), "share must be positive where weight is"),
        (lambda: PenaltyConfig(weight=-1.0), "weight must not be negative"),
        (lambda: PenaltyConfig(start=float("nan")), "start must be a share from 0 to 1, but is nan"),
        (lambda: AugmentationConfig(shift=-1), "shift must not be negative"),
        (lambda: EvaluationConfig(every=0), "every must be positive"),
        (lambda: EvaluationConfig(tol=0.0), "tol must be positive"),
        (lambda: OptimizerConfig(clip=0.0), "clip must be positive"),
        (lambda: OptimizerConfig(momentum=1.0), "momentum must be below 1"),
        (lambda: OptimizerConfig(weight_decay=0.1), "weight_decay goes with adamw, lion, muon or sgd"),
        (lambda: Config(DataConfig("digits"), Path("x"), label_smoothing=2.0), "label_smoothing must be a share"),
        (lambda: Config(DataConfig("digits"), Path("x"), average_decay=1.0), "average_decay must be from 0 to below 1"),
        (
            lambda: Config(
                DataConfig("digits"), Path("x"), model=ModelConfig(kind="explicit"), penalty=PenaltyConfig(weight=1.0)
            ),
            "penalty.weight needs an equilibrium, but model.kind is explicit",
        ),
        (
            lambda: Config(
                DataConfig("digits"),
                Path("x"),
                model=ModelConfig(kind="explicit"),
                early=EarlyConfig(share=0.5, max_iter=5),
            ),
            "early.share needs an equilibrium, but model.kind is explicit",
        ),
        (
            lambda: Config(DataConfig("digits"), Path("x"), label_smoothing=1.0),
            "label_smoothing must be a share from 0 to below 1",
        ),
        (lambda: OptimizerConfig(learning_rate=0.0), "learning_rate must be positive"),
        (lambda: OptimizerConfig(learning_rate=1e-3, final_learning_rate=1e-2), "must not exceed"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_the_run_is_given_the_settings_of_the_same_names():
    config = dataclasses.replace(
        PRESETS["cifar10"](),
        seed=3,
        max_steps=7,
        evaluation=EvaluationConfig(every=2, flip=True, tol=0.1, max_iter=9, radius_images=5),
    )
    settings = settings_of(config)
    for name in ("out", "seed", "epochs", "max_steps", "batch_size", "average_decay", "solver", "penalty", "optimizer"):
        assert getattr(settings, name) == getattr(config, name)
    assert settings.evaluation == EvaluationSettings(every=2, tol=0.1, max_iter=9, radius_samples=5)


def test_data_are_found_again_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = PRESETS["cifar10"]()
    assert located(config) == config
    assert located(dataclasses.replace(config, data_dir=Path("data"))).data_dir == tmp_path / "data"
