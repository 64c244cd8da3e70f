"""The best checkpoint: kept beside the last ones, and read on request."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from deq_jax import training
from deq_jax.training.disk import checkpoints
from deq_jax.training.disk.best import best_step, results
from deq_jax.training.programs import evaluate_split
from deq_jax.training.task import Result
from tests.own_task import QUICK, Ordinary, arrays, ordinary_loss, own_task
from tests.unchecked import unchecked

# Least after the second of six epochs, of three steps each; two parts of a run end within one.
ERRORS = {3: 0.5, 6: 0.1, 7: 0.9, 9: 0.4, 12: 0.3, 13: 0.9, 15: 0.2, 18: 0.6}
LOSS, SHARE = Result("loss", "", False), Result("accuracy", "%", True)


@pytest.fixture(scope="module", autouse=True)
def dictated():
    """Evaluations that come to ERRORS, whatever was trained."""

    def evaluate(plan, programs, split, state, is_cancelled):
        return evaluate_split(plan, programs, split, state, is_cancelled) | {"error": ERRORS[int(state.step)]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deq_jax.training.run.evaluate_split", evaluate)
        yield


def fit(out, **changes):
    return training.fit(own_task(), out=out, **QUICK | {"epochs": 6} | changes)


@pytest.fixture(scope="module")
def fitted(dictated, tmp_path_factory):
    """The folder of a run, and the run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, fit(out)


def weights(run):
    return nnx.as_pure(nnx.state(run.model, nnx.Any(nnx.Param, nnx.BatchStat)))


def test_the_best_is_the_largest_share_or_the_smallest_of_anything_else_of_equals_the_latest():
    measured = {1: 0.5, 2: 0.9, 3: 0.9, 4: 0.2}
    assert best_step(measured, SHARE, [1, 2, 3, 4]) == 3
    assert best_step(measured, LOSS, [1, 2, 3, 4]) == 4
    assert best_step(measured, SHARE, [1, 4, 7]) == 1
    assert best_step(measured, LOSS, [7]) is None


def test_what_is_not_finite_or_no_evaluation_is_no_result():
    records = [
        {"kind": "train", "step": 1, "loss": 0.1},
        {"kind": "eval", "step": 1, "loss": 0.3},
        {"kind": "eval", "step": 2, "loss": None},
    ]
    assert results(records, LOSS) == {1: 0.3}


def test_a_task_says_which_way_its_result_is_best():
    assert own_task().result == ("error", "", False)
    assert own_task(metrics={"hits": "%"}).result == ("hits", "%", True)
    assert own_task(metrics={"error": "%"}, best="min").result == ("error", "%", False)
    assert own_task(metrics={}).result == ("loss", "", False)
    with pytest.raises(training.UserError, match=r"task\.best is 'large'; expected"):
        _ = own_task()._replace(best="large").result


def test_it_stays_beside_the_last_three_and_is_loaded_on_request(fitted):
    folder, last = fitted
    assert checkpoints.steps_of(folder) == [6, 12, 15, 18]
    best = training.load(folder, own_task(), checkpoint="best")
    assert (best.step, last.step) == (6, 18)
    assert training.load(folder, own_task(), checkpoint=15).step == 15
    jax.tree.map(
        np.testing.assert_array_equal, weights(training.load(folder, own_task(), checkpoint="last")), weights(last)
    )


def test_its_weights_are_those_of_a_run_that_was_stopped_there(fitted, tmp_path):
    best = training.load(fitted[0], own_task(), checkpoint="best")
    stopped = fit(tmp_path, max_steps=6)
    jax.tree.map(np.testing.assert_array_equal, weights(best), weights(stopped))
    with pytest.raises(AssertionError):
        jax.tree.map(np.testing.assert_array_equal, weights(best), weights(fitted[1]))


@pytest.mark.long
def test_it_stays_over_resumptions_which_are_exact(fitted, tmp_path):
    for steps in (7, 13, None):
        resumed = fit(tmp_path, max_steps=steps)
    assert checkpoints.steps_of(tmp_path) == [6, 13, 15, 18]
    jax.tree.map(np.testing.assert_array_equal, weights(resumed), weights(fitted[1]))


def test_the_end_of_a_run_says_what_is_best_and_what_to_do_next(tmp_path, capsys):
    fit(tmp_path, max_steps=9)
    *_, finished, best, following = capsys.readouterr().out.splitlines()
    assert finished.startswith("Finished: test error 0.400 after step 9 and ")
    assert best == f"Best: test error 0.100 after step 6, in {tmp_path / 'checkpoints' / '6'}"
    assert following == f'Next: training.load("{tmp_path}", task)'


def test_a_quiet_run_says_only_what_is_wrong(tmp_path, capsys):
    fit(tmp_path, max_steps=3, quiet=True)
    fit(tmp_path, max_steps=3, quiet=True)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""
    refused(lambda: fit(tmp_path, quiet=True, seed=1), "another configuration")


def refused(call, *said):
    with pytest.raises(training.UserError) as error:
        call()
    for words in said:
        assert words in str(error.value)
    assert str(error.value).count("\n") <= 1


def test_a_checkpoint_that_is_not_there_names_those_that_are(fitted, tmp_path):
    folder, task = Path(shutil.copytree(fitted[0], tmp_path / "run")), own_task()
    refused(lambda: training.load(folder, task, checkpoint=3), "no checkpoint of step 3.", "There are: 6, 12, 15, 18.")
    refused(lambda: unchecked(training.load)(folder, task, checkpoint="first"), "'first'; expected best, last, or a")
    (folder / "checkpoints" / "6" / "seal.json").write_text("{")
    refused(lambda: training.load(folder, task, checkpoint="best"), "6 is damaged. Choose another: 6, 12, 15, 18")


def test_without_evaluations_nothing_tells_the_best(tmp_path):
    task = own_task(data=training.Data({"train": arrays()}), model=Ordinary, loss=ordinary_loss, metrics={})
    training.fit(task, out=tmp_path, **QUICK | {"epochs": 1})
    refused(lambda: training.load(tmp_path, task, checkpoint="best"), "no evaluation that tells its best checkpoint")
