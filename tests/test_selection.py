"""By what a run is judged, when it stops by itself, how it is made longer, and what it begins with."""

import jax
import numpy as np
import pytest
from flax import nnx

from deq_jax import training
from deq_jax.training.disk.best import best_step, is_stalled, results
from deq_jax.training.errors import UserError
from deq_jax.training.health import Watch, advice
from deq_jax.training.settings.settings import Settings
from deq_jax.training.settings.update import OptimizerConfig, PenaltyConfig
from deq_jax.training.steps.batches import count, taken
from deq_jax.training.steps.division import divided
from deq_jax.training.task import Data, Result
from tests.own_task import QUICK, own_task
from tests.runs import records

SHARE, LOSS = Result("accuracy", "%", True), Result("loss", "", False)


def fit(out, **changes):
    return training.fit(own_task(), out=out, quiet=True, **QUICK | {"epochs": 2} | changes)


def weights(run):
    return nnx.as_pure(nnx.state(run.model, nnx.Any(nnx.Param, nnx.BatchStat)))


def test_a_share_of_the_training_split_becomes_the_validation_split():
    rows = np.arange(20)
    splits = divided(Data({"train": (rows, 2 * rows), "test": (rows[:3], rows[:3])}), 0.25, seed=1)
    apart, kept = (taken(splits[name], np.arange(count(splits[name]))) for name in ("validation", "train"))
    assert len(apart[0]) == 5
    assert sorted([*apart[0], *kept[0]]) == list(rows)
    np.testing.assert_array_equal(apart[1], 2 * apart[0])
    again = divided(Data({"train": (rows, rows)}), 0.25, seed=1)["validation"]
    np.testing.assert_array_equal(taken(again, np.arange(5))[0], apart[0])
    other = divided(Data({"train": (rows, rows)}), 0.25, seed=2)["validation"]
    assert set(taken(other, np.arange(5))[0]) != set(apart[0])


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_share_that_leaves_nothing_is_a_user_error(share):
    with pytest.raises(UserError, match=r"validation\.share .* leaves"):
        divided(Data({"train": (np.arange(20),)}), share, seed=0)


def test_a_run_stalls_when_so_many_results_are_no_better():
    assert not is_stalled({1: 0.5, 2: 0.4}, SHARE, None)
    assert not is_stalled({1: 0.5, 2: 0.4}, SHARE, 2)
    assert is_stalled({1: 0.5, 2: 0.4, 3: 0.5}, SHARE, 2)
    assert not is_stalled({1: 0.5, 2: 0.4, 3: 0.6}, SHARE, 2)
    assert is_stalled({1: 0.5, 2: 0.6}, LOSS, 1)
    assert not is_stalled({1: 0.5, 2: 0.4}, LOSS, 1)


def test_the_best_is_chosen_by_the_validation_split_where_there_is_one():
    lines = [{"kind": kind, "step": k, "loss": loss} for k, kind, loss in ((1, "eval", 1.0), (2, "eval", 0.0))]
    assert best_step(results(lines, LOSS), LOSS, [1, 2]) == 2
    lines += [{"kind": "validation", "step": k, "loss": loss} for k, loss in ((1, 3.0), (2, 4.0))]
    assert best_step(results(lines, LOSS), LOSS, [1, 2]) == 1


def test_a_run_is_validated_stops_early_and_is_then_finished(tmp_path):
    changes = {"epochs": 9, "validation": {"share": 0.25, "patience": 1}, "optimizer": {"learning_rate": 0.5}}
    run = fit(tmp_path, **changes)
    kinds = [line["kind"] for line in records(tmp_path)]
    assert kinds.count("validation") == kinds.count("eval") > 1
    assert run.step < 18
    again = fit(tmp_path, **changes)
    assert again.step == run.step
    assert [line["kind"] for line in records(tmp_path)] == kinds


@pytest.mark.long
def test_a_finished_run_is_made_longer_where_the_rate_is_constant_as_if_it_had_been_from_the_start(tmp_path):
    constant = {"optimizer": {"schedule": "constant"}}
    fit(tmp_path / "parts", epochs=1, **constant)
    parts = fit(tmp_path / "parts", epochs=2, **constant)
    whole = fit(tmp_path / "whole", epochs=2, **constant)
    jax.tree.map(np.testing.assert_array_equal, weights(parts), weights(whole))
    with pytest.raises(UserError, match="epochs 2 instead of 1"):
        fit(tmp_path / "parts", epochs=1, **constant)


@pytest.mark.long
def test_a_run_whose_schedule_spans_all_epochs_is_not_made_longer_and_its_weights_begin_another(tmp_path):
    one = fit(tmp_path / "one", epochs=1)
    with pytest.raises(UserError, match=r"2 epochs instead of 1: optimizer\.schedule is cosine") as error:
        fit(tmp_path / "one", epochs=2)
    assert f"initial.run {tmp_path / 'one'}" in str(error.value)
    slow = {"learning_rate": 1e-30, "final_learning_rate": 0.0}
    other = fit(tmp_path / "other", epochs=1, seed=5, optimizer=slow, initial={"run": tmp_path / "one"})
    params = (nnx.as_pure(nnx.state(run.model, nnx.Param)) for run in (one, other))
    jax.tree.map(np.testing.assert_array_equal, *params)
    with pytest.raises(UserError, match="does not exist"):
        fit(tmp_path / "third", initial={"run": tmp_path / "nowhere"})


def test_checkpoints_may_lie_in_another_folder_which_is_one_runs_alone(tmp_path):
    elsewhere = str(tmp_path / "elsewhere")
    run = fit(tmp_path / "run", epochs=1, checkpoint_dir=elsewhere)
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert (tmp_path / "elsewhere" / str(run.step) / "seal.json").exists()
    loaded = training.load(tmp_path / "run", own_task())
    jax.tree.map(np.testing.assert_array_equal, weights(run), weights(loaded))
    with pytest.raises(UserError, match="holds something already"):
        fit(tmp_path / "other", checkpoint_dir=elsewhere)


def with_a_bad_batch():
    """The own task, one of whose samples has a target that is not finite."""
    task = own_task()
    x, y = task.data.splits["train"]
    y = np.array(y)
    y[3] = np.inf
    return task._replace(data=task.data._replace(splits={**task.data.splits, "train": (x, y)}))


@pytest.mark.long
def test_a_step_that_is_not_finite_is_skipped_and_counted_where_that_is_asked_for(tmp_path):
    settings = QUICK | {"epochs": 2, "quiet": True}
    run = training.fit(with_a_bad_batch(), out=tmp_path / "on", optimizer={"skip_non_finite": True}, **settings)
    assert sum(line.get("skipped", 0) for line in run.metrics) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights(run)))
    with pytest.raises(training.NonFiniteLossError, match="not finite at step"):
        training.fit(with_a_bad_batch(), out=tmp_path / "off", **settings)


def line(step, loss, residual=1e-3, converged=1.0):
    solved = {"forward_residual": residual, "forward_converged": converged}
    return {"kind": "train", "step": step, "loss": loss, **solved}


def test_a_model_that_explodes_and_stays_finite_is_told_once(tmp_path):
    said = []
    watch = Watch([], said.append, Settings(tmp_path))
    for step, loss in enumerate([2.3, 2.0, 1e3, 1e6, 1e9, 1e12, 1e15, 8e18], 1):
        watch.add(line(step, loss))
    assert len(said) == 1
    assert "the loss is" in said[0]
    assert "2.3 at the start" in said[0]
    assert "penalty.weight" in said[0]
    assert Watch([line(step, 2.3) for step in range(1, 9)], said.append, Settings(tmp_path)).ailment() is None


def test_solves_that_fall_short_of_a_rising_residual_are_told(tmp_path):
    ailing = [line(1, 2.3), *(line(step, 2.0, residual=0.9, converged=0.1) for step in range(2, 8))]
    ailment = Watch(ailing, print, Settings(tmp_path)).ailment()
    assert "90% of the solves fall short of their tolerance, at a residual of 9.0e-01, 1.0e-03 at the start" in ailment


def test_the_first_solves_after_unrolled_steps_are_the_start_of_residuals(tmp_path):
    """A residual that nobody had measured before has not risen."""
    unrolled = [line(step, 2.3, residual=None, converged=None) for step in range(1, 6)]
    solved = [line(step, 2.2, residual=0.3, converged=0.0) for step in range(6, 12)]
    assert Watch([*unrolled, *solved], print, Settings(tmp_path)).ailment() is None
    risen = [line(step, 2.2, residual=5.0, converged=0.0) for step in range(12, 18)]
    assert "3.0e-01 at the start" in Watch([*unrolled, *solved, *risen], print, Settings(tmp_path)).ailment()


def test_the_advice_names_what_the_run_has(tmp_path):
    penalised = Settings(tmp_path, penalty=PenaltyConfig(weight=1.0), optimizer=OptimizerConfig(clip=1.0))
    assert "a lower penalty.weight" in advice(penalised)
    assert "clip" not in advice(penalised)
