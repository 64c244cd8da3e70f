import dataclasses
from itertools import pairwise

import pytest

from deq_jax.tasks.images.config import settings_of
from deq_jax.training.settings.solves import AdjointConfig, EarlyConfig
from deq_jax.training.settings.update import PenaltyConfig
from deq_jax.training.steps.phases import Phase, phase_of, phases_of
from tests.runs import tiny


def penalised(config, total):
    return [step for step in range(total) if phase_of(settings_of(config), step, total).has_penalty]


def test_a_run_without_switches_has_one_phase(tmp_path):
    assert phases_of(settings_of(tiny(tmp_path)), range(100), 100) == {Phase("implicit", 6, has_penalty=False)}


def test_what_is_early_ends_at_its_share_of_the_run(tmp_path):
    early = EarlyConfig(share=0.3, adjoint_kind="phantom", max_iter=2)
    config = tiny(tmp_path, early=early, adjoint=AdjointConfig(kind="implicit"))
    assert phase_of(settings_of(config), 2, 10) == Phase("phantom", 2, has_penalty=False)
    assert phase_of(settings_of(config), 3, 10) == Phase("implicit", 6, has_penalty=False)


@pytest.mark.parametrize(("share", "expected"), [(1.0, 60), (0.5, 30), (0.1, 6)])
def test_the_penalty_takes_its_share_of_steps_evenly_between_start_and_stop(tmp_path, share, expected):
    config = tiny(tmp_path, penalty=PenaltyConfig(weight=1.0, share=share, start=0.2, stop=0.8))
    steps = penalised(config, 100)
    assert len(steps) == expected
    assert steps[0] == 20
    assert steps[-1] < 80
    assert {after - before for before, after in pairwise(steps)} == {round(1 / share)}
    assert penalised(dataclasses.replace(config, penalty=PenaltyConfig(share=share)), 100) == []


def test_the_penalty_begins_with_its_first_step_wherever_that_falls(tmp_path):
    for total, start, first in ((5, 0.5, 3), (10, 0.25, 3), (7485, 0.25, 1872)):
        config = tiny(tmp_path, penalty=PenaltyConfig(weight=1.0, share=0.1, start=start))
        assert penalised(config, total)[0] == first


def test_a_penalty_that_would_never_be_on_is_refused():
    with pytest.raises(ValueError, match=r"start must be below stop, but is 0\.5, and stop 0\.5"):
        PenaltyConfig(weight=1.0, start=0.5, stop=0.5)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.37, 0.01])
@pytest.mark.parametrize("steps", [range(100), range(30, 31), range(55, 100), range(100, 100)])
def test_the_phases_are_found_without_a_look_at_every_step(tmp_path, share, steps):
    config = tiny(
        tmp_path,
        early=EarlyConfig(share=0.3, max_iter=2),
        penalty=PenaltyConfig(weight=1.0, share=share, start=0.25, stop=0.8),
    )
    expected = {phase_of(settings_of(config), step, 100) for step in steps}
    assert phases_of(settings_of(config), steps, 100) == expected


def test_the_phases_of_a_billion_steps_are_found_at_once(tmp_path):
    config = tiny(tmp_path, penalty=PenaltyConfig(weight=1.0, share=1e-9))
    assert len(phases_of(settings_of(config), range(10**9), 10**9)) == 2
