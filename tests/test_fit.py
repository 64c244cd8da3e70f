"""Training from Python, and reading what it has left."""

import functools
import itertools
import json
import re
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from deq_jax import training
from deq_jax.evaluate import evaluate_run
from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.data import load as load_images
from deq_jax.tasks.images.task import scaled
from deq_jax.tasks.presets import train
from tests.own_task import QUICK, Ordinary, Regressor, Two, arrays, ordinary_loss, own_task, two_losses
from tests.runs import records, tiny, without_times
from tests.unchecked import unchecked

ROOT = Path(__file__).parents[1]
# One worker runs them all, and those of test_run.py: they share one run.
pytestmark = pytest.mark.xdist_group("run")


@pytest.fixture(scope="module")
def task():
    return own_task()


@pytest.fixture(scope="module")
def fitted(task, tmp_path_factory):
    """A run, and what fit gave for it."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    return out, training.fit(task, out=str(out), **QUICK)


@pytest.fixture
def copied(fitted, tmp_path):
    return Path(shutil.copytree(fitted[0], tmp_path / "mine"))


def weights(model):
    return nnx.as_pure(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, weights(one.model), weights(other.model))
    assert without_times(one.metrics) == without_times(other.metrics)
    assert one.step == other.step


def test_the_example_of_the_docs_is_forty_lines_at_most():
    page = (ROOT / "docs/how-to/train-your-own.md").read_text(encoding="utf-8")
    example = re.search(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[1]
    assert "training.fit(" in example
    assert "nn.DEQ(" in example
    assert len(example.splitlines()) <= 40  # that it runs is tested with all others


def test_a_run_of_one_s_own_leaves_what_a_preset_s_does(fitted):
    out, run = fitted
    for name in ("config.json", "environment.json", "metrics.jsonl", "curves.png", "checkpoints"):
        assert (out / name).exists()
    assert run.step == 6
    assert run.metrics == records(out)
    assert [line["step"] for line in run.metrics if line["kind"] == "eval"] == [3, 6]
    for line in run.metrics:
        assert {"error", "forward_iterations", "forward_converged"} <= line.keys()
        assert 0 < line["error"] < 2
    assert (run.settings.epochs, run.settings.solver.max_iter, run.settings.out) == (2, 10, out)


def test_the_same_call_again_trains_nothing_and_gives_the_same(task, fitted, capsys):
    out, run = fitted
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert_same(training.fit(task, run.settings), run)
    assert "Nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert_same(training.load(out, task), run)


def test_a_run_goes_on_as_if_it_had_never_stopped_its_dropout_too(task, fitted, tmp_path):
    first = training.fit(task, out=tmp_path / "run", max_steps=4, **QUICK)
    assert first.step == 4
    whole = training.fit(task, out=tmp_path / "run", **QUICK)
    assert whole.step == 6
    jax.tree.map(np.testing.assert_array_equal, weights(whole.model), weights(fitted[1].model))


def test_dropout_draws_anew_in_every_step_and_not_in_an_evaluation(fitted, task):
    model = fitted[1].model
    x = task.data.splits["test"][0]
    np.testing.assert_array_equal(model(x)[0], model(x)[0])
    assert model.dropout.deterministic


def test_the_loaded_model_repeats_the_run_s_own_evaluation(fitted, task):
    out, run = fitted
    outcome = task.loss(training.load(out, task).model, task.data.splits["test"], None)
    # Compiled apart, so perhaps in another order of additions: a few roundings of float32.
    np.testing.assert_allclose(outcome.loss.mean(), run.metrics[-1]["loss"], rtol=1e-4)


def test_a_preset_s_run_is_read_by_its_folder_alone(finished_run):
    run = training.load(finished_run)
    assert isinstance(run.settings, Config)
    assert run.step == 7
    test = load_images("digits", "test")
    accuracy = (run.model(scaled(test.images))[0].argmax(1) == test.labels).mean()
    assert accuracy == pytest.approx(run.metrics[-1]["accuracy"], abs=1 / 360)


def test_two_equilibria_are_counted_together(tmp_path):
    task = own_task(model=Two, loss=two_losses, equilibria=2, metrics={})
    settings = QUICK | {"epochs": 1, "evaluation": {"radius_samples": 4}, "penalty": {"weight": 0.1}}
    run = training.fit(task, out=tmp_path / "run", **settings)
    for line in run.metrics:
        assert 4 <= line["forward_iterations"] <= 20  # two for each at least
    assert [line["adjoint_iterations"] for line in run.metrics] == [4, 4, 4, None]  # two of each phantom gradient
    assert all(line["penalty"] > 0 for line in run.metrics[:-1])
    assert 0 < run.metrics[-1]["spectral_radius"] < 1
    assert (tmp_path / "run" / "curves.png").exists()


def test_an_ordinary_network_without_a_test_split_trains(tmp_path, capsys):
    task = own_task(data=training.Data({"train": arrays()}), model=Ordinary, loss=ordinary_loss, metrics={})
    run = training.fit(task, out=tmp_path / "run", **QUICK | {"epochs": 20}, optimizer={"learning_rate": 0.1})
    assert "Finished: training loss" in capsys.readouterr().out
    assert {line["kind"] for line in run.metrics} == {"train"}
    assert all(line["forward_iterations"] is line["adjoint_residual"] is None for line in run.metrics)
    assert not run.metrics[0].keys() & {"forward_converged", "adjoint_converged"}
    losses = [line["loss"] for line in run.metrics]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])  # of an epoch each
    assert_same(training.fit(task, run.settings), run)


class Source:
    """Rows read when they are asked for, as from a data base."""

    def __init__(self, n):
        self.arrays, self.read = arrays(n), []

    def __len__(self):
        return len(self.arrays[0])

    def __getitem__(self, rows):
        self.read.append(len(rows))
        return tuple(array[rows] for array in self.arrays)


def test_a_source_and_arrays_on_disk_train_as_arrays_in_memory_do(tmp_path):
    task = own_task(model=Ordinary, loss=ordinary_loss, metrics={})
    np.save(tmp_path / "x.npy", arrays()[0])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r"), arrays()[1]
    source = Source(40)
    runs = [
        training.fit(task._replace(data=training.Data({"train": data})), out=tmp_path / str(k), **QUICK)
        for k, data in enumerate((arrays(), mapped, source))
    ]
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])
    assert max(source.read) == QUICK["batch_size"]


def test_ctrl_c_comes_into_effect_behind_a_checkpoint(task, tmp_path, monkeypatch, fitted):
    @contextmanager
    def seen_after_some_looks():
        count = itertools.count()
        yield lambda: signal.SIGINT if next(count) >= 2 else None

    with monkeypatch.context() as patch:
        patch.setattr("deq_jax.training.run.stop_requests", seen_after_some_looks)
        # A shell's background job, and so a test in one, ignores it.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                training.fit(task, out=tmp_path / "run", **QUICK)
        finally:
            signal.signal(signal.SIGINT, before)
    assert training.load(tmp_path / "run", task).step == 2  # an unfinished run, as far as it came
    assert training.fit(task, out=tmp_path / "run", **QUICK).step == 6


def refused(call, *said):
    """A UserError in at most two lines that name no option of a command line, and nothing changed."""
    with pytest.raises(training.UserError) as error:
        call()
    message = str(error.value)
    for words in said:
        assert words in message
    assert message.count("\n") <= 1
    assert not re.search(r"--\w", message)


def test_a_model_of_another_form_is_refused_and_the_run_stays_as_it_is(task, copied):
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.name != ".lock"}
    wider = task._replace(model=functools.partial(Regressor, width=8))
    refused(
        lambda: training.fit(wider, out=copied, **QUICK),
        "is of another model: it has",
        "float32[4]",
        "float32[8]",
        "choose another folder",
    )
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.name != ".lock"} == before
    refused(lambda: training.load(copied, wider), "is of another model")


def test_the_folder_of_another_run_is_refused(task, fitted, finished_run, tmp_path):
    out, _ = fitted
    refused(lambda: training.fit(task, out=finished_run, **QUICK), "holds a run of the task deq_jax.tasks.images.task")
    refused(
        lambda: training.fit(task, out=out, **QUICK | {"epochs": 3}), "cannot be made longer, 3 epochs instead of 2"
    )
    refused(lambda: train(tiny(out)), "holds a run of a task of one's own, not of the task deq_jax.tasks.images.task")
    refused(lambda: evaluate_run(out), "training.load reads it in Python")
    x, y = task.data.splits["train"]
    for splits in ({"train": arrays(seed=1)}, {**task.data.splits, "train": (x, 2 * y)}):
        others = task._replace(data=training.Data(splits))
        refused(lambda others=others: training.fit(others, out=out, **QUICK), "was trained on other data")
    (tmp_path / "thesis.tex").write_text("")
    refused(lambda: training.fit(task, out=tmp_path, **QUICK), "holds files, but no run")


def test_what_cannot_be_loaded_is_said(task, fitted, finished_run, copied, tmp_path):
    refused(lambda: training.load(tmp_path / "nowhere"), "does not exist")
    refused(lambda: training.load(fitted[0]), "a task of one's own", f"training.load('{fitted[0]}', task)")
    refused(lambda: training.load(finished_run, task), "holds a run of the task deq_jax.tasks.images.task", "reads it")
    for folder in (copied / "checkpoints").iterdir():
        for file in folder.rglob("*"):
            if file.is_file() and file.name != "seal.json":
                file.write_bytes(b"")
    refused(lambda: training.load(copied, task), "no checkpoint in", "is readable")
    shutil.rmtree(copied / "checkpoints")
    refused(lambda: training.load(copied, task), "holds no checkpoint")
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"task": "os"}))
    refused(lambda: training.load(copied), "a task of one's own")  # nothing but this library's tasks is imported
    (copied / "config.json").write_text("{")
    refused(lambda: training.load(copied, task), "config.json is damaged")


def test_a_task_that_breaks_its_word_has_begun_no_run(task, tmp_path):
    out = tmp_path / "run"
    mean = task._replace(loss=lambda model, batch, report: model(batch[0], report)[0].mean())
    refused(lambda: training.fit(mean, out=out, **QUICK), "task.loss returned", "expected a training.Outcome")
    assert not (out / "config.json").exists()
    x, y = arrays()
    uneven = task._replace(data=training.Data({"train": (x, y[:-1])}))
    refused(lambda: training.fit(uneven, out=tmp_path / "other", **QUICK), "40 in [0], 39 in [1]")
    assert not (tmp_path / "other").exists()
    # Mended, the same call trains.
    assert training.fit(task, out=out, **QUICK | {"epochs": 1}).step == 3


def test_what_is_no_task_is_said(fitted, tmp_path):
    refused(
        lambda: unchecked(training.fit)(Regressor, out=tmp_path / "run"), "fit was given a", "expected a training.Task"
    )
    refused(lambda: unchecked(training.load)(fitted[0], Regressor), "expected the training.Task")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"out": None}, "out is None; expected a folder"),
        ({"batch_size": 100}, "batch_size 100 exceeds the 24 training samples"),
        ({"penalty": {"weight": 1.0}}, "penalty.weight needs the cell of an equilibrium"),
        ({"task": own_task(model=lambda solver, adjoint, rngs: None)}, "task.model returned a NoneType"),
        (
            {"optimizer": {"learning_rate": 1e38}},
            "Try a lower optimizer.learning_rate, an optimizer.clip",
        ),
    ],
)
def test_mistakes_are_said_in_python_s_words(task, tmp_path, changes, said):
    given = QUICK | {"task": task, "out": tmp_path / "run"} | changes
    refused(lambda: training.fit(given.pop("task"), **given), said)
