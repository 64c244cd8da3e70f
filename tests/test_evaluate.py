import json
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from deq_jax import evaluate, training
from deq_jax.evaluate import evaluated
from deq_jax.tasks.images.data import load
from deq_jax.tasks.images.groups import DataConfig
from deq_jax.tasks.images.task import OPENER, scaled
from deq_jax.tasks.presets import train
from deq_jax.training.disk.folder import claim
from deq_jax.training.programs import evaluate_split
from tests.runs import records, tiny

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("run")


def test_it_prints_one_json_object_that_repeats_the_runs_own_evaluation(finished_run):
    command = [sys.executable, "-m", "deq_jax.evaluate", str(finished_run)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(printed.stdout)
    assert printed.stdout.count("\n") == 1
    last = records(finished_run)[-1]
    for name in ("accuracy", "forward_iterations", "step"):
        assert result[name] == last[name]
    for name in ("loss", "forward_residual"):
        # Compiled apart, so perhaps in another order of additions: a few roundings of float32.
        assert result[name] == pytest.approx(last[name], rel=1e-5)
    assert (result["count"], result["dataset"], result["split"]) == (360, "digits", "test")
    assert result["converged"] == last["forward_converged"]


def test_the_training_split_is_counted_whole(finished_run, capsys):
    evaluate.main([str(finished_run), "--split", "train"])
    result = json.loads(capsys.readouterr().out)
    assert (result["count"], result["split"]) == (1437, "train")


def test_the_solve_can_be_given_another_tolerance(finished_run, capsys):
    evaluate.main([str(finished_run), "--tol", "1e-4", "--max-iter", "60"])
    result = json.loads(capsys.readouterr().out)
    assert (result["tol"], result["max_iter"]) == (1e-4, 60)
    assert result["forward_residual"] < 1e-4
    assert result["converged"] == 1
    assert 6 < result["forward_iterations"] < 60  # 6 are the run's own limit


def put_a_file_for_checkpoints(run):
    claim(run, tiny(run), OPENER)
    (run / "checkpoints").write_text("")


@pytest.mark.parametrize(
    ("prepare", "arguments", "said"),
    [
        (lambda out: None, ["{out}/missing"], "does not exist"),
        (lambda out: None, ["{out}"], "is not a run: it holds no config.json"),
        (lambda out: claim(out, tiny(out), OPENER), ["{out}"], "holds no checkpoint. Start its training again"),
        (lambda out: claim(out, tiny(out), OPENER), ["{out}", "--split", "validation"], "invalid choice 'validation'"),
        (lambda out: (out / "config.json").write_text("{"), ["{out}"], "damaged"),
        (
            lambda out: claim(out, tiny(out, data=DataConfig("cifar10")), OPENER),
            ["{out}", "--data-dir", "{out}"],
            "no cifar10",
        ),
        (lambda out: None, [], "RUN"),
        (lambda out: None, [""], "an argument is empty"),
        (lambda out: put_a_file_for_checkpoints(out), ["{out}"], "checkpoints is a file"),
        (
            lambda out: claim(out, tiny(out), OPENER),
            ["{out}", "--max-iter", "0"],
            "--max-iter must be positive, but is 0",
        ),
        (lambda out: None, ["{out}", "--splt", "test"], "Unrecognized options: --splt"),
    ],
)
def test_mistakes_end_with_status_2_and_two_lines_at_most(tmp_path, capsys, prepare, arguments, said):
    prepare(tmp_path)
    with pytest.raises(SystemExit) as end:
        evaluate.main([argument.format(out=tmp_path) for argument in arguments])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert said in printed.err
    assert len(printed.err.splitlines()) <= 2


@pytest.mark.long
def test_classes_are_counted_each(finished_run, tmp_path):
    evaluation = evaluated(finished_run, None, "test", None, None, "last")
    counts, result = evaluation.confusion, evaluation.result
    assert counts.sum() == result["count"] == 360
    assert result["accuracy"] == pytest.approx(counts.trace() / 360)
    test = load("digits", "test")
    model = training.load(finished_run).model
    taken_for = np.asarray(model(scaled(test.images))[0].argmax(1))
    for k in range(10):
        own = taken_for[test.labels == k]
        # Compiled apart: of two classes as likely as each other one or the other.
        np.testing.assert_allclose(counts[k], np.bincount(own, minlength=10), atol=1)
        assert result["class_accuracy"][str(k)] == counts[k, k] / len(own)


@pytest.mark.long
def test_the_confusion_is_drawn_into_the_run_one_for_each_split(finished_run, tmp_path, capsys):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    for split, name in (("test", "confusion.png"), ("train", "confusion-train.png")):
        evaluate.main([str(run), "--split", split])
        assert min(matplotlib.image.imread(run / name).shape[:2]) > 500
    assert not list(run.glob(".*.png"))
    (run / "confusion.png").unlink()
    (run / "confusion.png").mkdir()
    capsys.readouterr()
    evaluate.main([str(run)])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["count"] == 360
    assert printed.err.startswith(f"warning: {run / 'confusion.png'} is not drawn")


@pytest.mark.long
def test_the_best_and_any_other_checkpoint_can_be_evaluated(tmp_path, capsys, monkeypatch):
    """Of a run in five parts, of which the first is made to be the best."""

    def dictated(plan, programs, split, state, is_cancelled):
        means = evaluate_split(plan, programs, split, state, is_cancelled)
        return means | {"accuracy": 0.99 if state.step == 2 else 0.5}

    with monkeypatch.context() as patch:
        patch.setattr("deq_jax.training.run.evaluate_split", dictated)
        for steps in (2, 3, 4, 5, 6):
            assert train(tiny(tmp_path, max_steps=steps)) == 0
    capsys.readouterr()
    steps = []
    for choice in ("best", "last", "5"):
        evaluate.main([str(tmp_path), "--checkpoint", choice])
        steps.append(json.loads(capsys.readouterr().out)["step"])
    assert steps == [2, 6, 5]
    for choice, said in (
        ("3", "no checkpoint of step 3. There are: 2, 4, 5, 6."),
        ("first", "expected best, last, or a"),
    ):
        with pytest.raises(SystemExit) as end:
            evaluate.main([str(tmp_path), "--checkpoint", choice])
        assert end.value.code == 2
        assert said in capsys.readouterr().err
