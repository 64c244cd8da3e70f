"""A run on eight devices beside the same on one: python -m tests.eight_devices FOLDER.

Devices are counted when JAX starts, so it is a program of its own, started with eight of them.
"""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from deq_jax.tasks.images.config import settings_of
from deq_jax.tasks.images.groups import AugmentationConfig, DataConfig
from deq_jax.tasks.images.task import open_task
from deq_jax.tasks.presets import train
from deq_jax.training.devices.collectives import collectives
from deq_jax.training.plan import prepare
from deq_jax.training.programs import compile_programs
from deq_jax.training.settings.solves import AdjointConfig, EarlyConfig, SolverConfig
from deq_jax.training.settings.update import PenaltyConfig
from tests.runs import records, tiny

STEPS_OF_AN_EPOCH = 11


def config(out: Path, **changes):
    # Close enough that no rounding moves the evaluation at which a sample stops.
    solver = SolverConfig(tol=1e-3, max_iter=40, m=3)
    return dataclasses.replace(tiny(out), batch_size=128, solver=solver, **changes)


def on_one_and_on_eight(folder: Path, **changes) -> list[list[dict]]:
    for devices in (1, 8):
        train(config(folder / str(devices), devices=devices, **changes), is_quiet=True)
    return [records(folder / str(devices)) for devices in (1, 8)]


def losses(lines: list[dict], kind: str = "train") -> list[float]:
    return [line["loss"] for line in lines if line["kind"] == kind]


def check_first_epoch(folder: Path) -> None:
    """Losses and evaluations are those of one device."""
    one, eight = on_one_and_on_eight(folder, max_steps=STEPS_OF_AN_EPOCH)
    assert len(losses(one)) == STEPS_OF_AN_EPOCH
    np.testing.assert_allclose(losses(eight), losses(one), atol=1e-4)
    np.testing.assert_allclose(losses(eight, "eval"), losses(one, "eval"), atol=1e-2)
    for ours, theirs in zip(eight, one, strict=True):
        assert abs(ours["forward_iterations"] - theirs["forward_iterations"]) < 0.5


def check_all_that_a_step_may_do(folder: Path) -> None:
    """What is drawn is drawn for the whole batch: changed images, the penalty's directions."""
    one, eight = on_one_and_on_eight(
        folder,
        max_steps=6,
        data=DataConfig("digits"),
        augmentation=AugmentationConfig(shift=1),
        average_decay=0.9,
        penalty=PenaltyConfig(weight=0.1, share=0.5),
        early=EarlyConfig(share=3 / STEPS_OF_AN_EPOCH, adjoint_kind="jacobian-free"),
        adjoint=AdjointConfig(kind="phantom", steps=2),
    )
    np.testing.assert_allclose(losses(eight), losses(one), atol=1e-4)
    np.testing.assert_allclose(losses(eight, "eval"), losses(one, "eval"), atol=1e-3)
    penalties = [[line["penalty"] for line in lines if line.get("penalty") is not None] for lines in (one, eight)]
    assert penalties[0]
    np.testing.assert_allclose(*penalties, rtol=1e-3)


def check_collectives(folder: Path) -> None:
    """No device waits for another in a loop; outside there are two for each BatchNorm, and one for the gradients."""
    settings = settings_of(config(folder / "program"))
    plan, state = prepare(open_task(config(folder / "program")), settings)
    norms = sum(type(module).__name__ == "BatchNorm" for _, module in nnx.iter_modules(plan.model))
    programs = compile_programs(plan, state, 0)
    step = collectives(programs.train_steps[plan.phase_of(1)].as_text())
    assert step.in_loops == [], step
    assert sorted(step.once) == ["all-gather"] * norms + ["all-reduce"] * (norms + 1), step
    evaluation = collectives(programs.eval_step.as_text())
    assert evaluation.in_loops == [], evaluation
    assert evaluation.once == ["all-reduce"], evaluation


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    folder = Path(sys.argv[1])
    for check in (check_first_epoch, check_all_that_a_step_may_do, check_collectives):
        check(folder / check.__name__)
