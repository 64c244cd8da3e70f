"""What a run says of image files."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from deq_jax import predict, training
from deq_jax.tasks.images.data import load
from deq_jax.tasks.images.groups import EvaluationConfig
from deq_jax.tasks.images.task import scaled
from deq_jax.tasks.presets import train
from deq_jax.training.disk.folder import claim
from tests.own_task import QUICK, own_task
from tests.runs import tiny

ROOT = Path(__file__).parents[1]
KEYS = ["file", "class", "probability", "residual", "evaluations"]
pytestmark = pytest.mark.xdist_group("run")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The first images of the test split, as files."""
    folder = tmp_path_factory.mktemp("images")
    for k, image in enumerate(load("digits", "test").images[:5]):
        Image.fromarray(image[..., 0]).save(folder / f"{k}.png")
    return [str(folder / f"{k}.png") for k in range(5)]


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


def rows(printed):
    return [json.loads(line, parse_constant=refuse) for line in printed.splitlines()]


def predicted(capsys, *arguments):
    predict.main([str(argument) for argument in arguments])
    return rows(capsys.readouterr().out)


@pytest.mark.long
def test_json_says_what_the_model_does_solved_as_in_an_evaluation(finished_run, files):
    command = [sys.executable, "-m", "deq_jax.predict", str(finished_run), *files, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    logits, solution = training.load(finished_run).model(scaled(load("digits", "test").images[:5]))
    probabilities = jax.nn.softmax(logits)
    for k, row in enumerate(rows(done.stdout)):
        assert list(row) == KEYS
        assert row["file"] == files[k]
        assert row["class"] == str(probabilities[k].argmax())
        # Compiled apart, so perhaps in another order of additions: a few roundings of float32.
        assert row["probability"] == pytest.approx(float(probabilities[k].max()), rel=1e-4)
        assert row["residual"] == pytest.approx(float(solution.residual[k]), rel=1e-3)
        assert row["evaluations"] == solution.iterations[k]
        assert isinstance(row["evaluations"], int)
    assert len(rows(done.stdout)) == 5


def test_the_table_has_a_line_for_each_file(finished_run, files, capsys):
    expected = predicted(capsys, finished_run, *files, "--json")
    predict.main([str(finished_run), *files])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == KEYS
    for line, row in zip(lines, expected, strict=True):
        file, name, probability, residual, evaluations = line.split()
        assert (file, name, int(evaluations)) == (row["file"], row["class"], row["evaluations"])
        assert (probability, residual) == (f"{row['probability']:.2%}", f"{row['residual']:.1e}")


def test_a_file_s_answer_does_not_depend_on_the_others(finished_run, files, capsys):
    (alone,) = predicted(capsys, finished_run, files[3], "--json")
    among = predicted(capsys, finished_run, *files, "--json")[3]
    assert alone.pop("probability") == pytest.approx(among.pop("probability"), rel=1e-5)
    assert alone.pop("residual") == pytest.approx(among.pop("residual"), rel=1e-3)
    assert alone == among


def test_more_files_than_a_batch_are_all_predicted(finished_run, files, capsys, tmp_path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"batch_size": 2}))
    assert [row["file"] for row in predicted(capsys, run, *files, "--json")] == files


def test_files_of_any_size_and_mode_are_taken(finished_run, files, capsys, tmp_path):
    Image.open(files[0]).resize((300, 200)).convert("RGBA").save(tmp_path / "large.png")
    Image.open(files[0]).convert("P").save(tmp_path / "palette.gif")
    large, palette, same = predicted(
        capsys, finished_run, tmp_path / "large.png", tmp_path / "palette.gif", files[0], "--json"
    )
    assert palette | {"file": files[0]} == same
    assert large["evaluations"] > 0


def test_what_is_no_image_is_named_and_the_others_are_predicted(finished_run, files, capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("notes")
    given = [str(tmp_path / "notes.txt"), files[0], str(tmp_path / "missing.png"), files[1]]
    with pytest.raises(SystemExit) as end:
        predict.main([str(finished_run), *given, "--json"])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert [row["file"] for row in rows(printed.out)] == files[:2]
    assert printed.err.splitlines() == [
        f"error: {given[0]} cannot be predicted: it is no image that Pillow knows.",
        f"error: {given[2]} cannot be predicted: there is no such file.",
    ]


def test_nothing_but_what_is_no_image_has_no_row(finished_run, capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        predict.main([str(finished_run), str(tmp_path), "--json"])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "is a folder" in printed.err


def test_a_name_that_is_no_text_is_printed(finished_run, files, capsys, tmp_path):
    path = tmp_path / "\udcff.png"
    shutil.copy(files[0], path)
    predict.main([str(finished_run), str(path)])
    assert r"\udcff.png" in capsys.readouterr().out


def test_the_data_are_not_needed(finished_run, files, capsys, monkeypatch):
    expected = predicted(capsys, finished_run, files[0], "--json")
    monkeypatch.setattr("deq_jax.tasks.images.task.load", None)
    assert predicted(capsys, finished_run, files[0], "--json") == expected


def test_a_run_of_before_its_folder_described_the_images_is_predicted_with_its_data(
    finished_run, files, capsys, tmp_path
):
    expected = predicted(capsys, finished_run, files[0], "--json")
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    for damage in (lambda known: {**known, "sample": {}}, lambda known: []):
        known = json.loads((run / "environment.json").read_text())
        (run / "environment.json").write_text(json.dumps(damage(known)))
        assert predicted(capsys, run, files[0], "--json") == expected


@pytest.mark.long
def test_ordinary_layers_have_no_residual_and_mirrored_images_count(tmp_path, files, capsys):
    config = tiny(tmp_path, max_steps=1, evaluation=EvaluationConfig(flip=True))
    train(dataclasses.replace(config, model=dataclasses.replace(config.model, kind="explicit")))
    capsys.readouterr()
    (row,) = predicted(capsys, tmp_path, files[0], "--json")
    assert row["residual"] is None
    model, images = training.load(tmp_path).model, load("digits", "test").images[:1]
    logits = (model(scaled(images))[0] + model(scaled(images[:, :, ::-1]))[0]) / 2
    assert row["probability"] == pytest.approx(float(jax.nn.softmax(logits).max()), rel=1e-4)
    predict.main([str(tmp_path), files[0]])
    assert "–" in capsys.readouterr().out.splitlines()[1]


def test_what_is_not_finite_is_null(tmp_path, files, capsys):
    train(tiny(tmp_path, max_steps=1))
    capsys.readouterr()
    classifier = predict.load(tmp_path)
    broken = classifier._replace(weights=jax.tree.map(lambda leaf: leaf * np.nan, classifier.weights))
    (row,) = predict.predict_files(broken, files[:1], [])
    assert row["probability"] is row["residual"] is None
    json.dumps(row, allow_nan=False)


def test_an_unfinished_run_is_predicted_with_a_note(finished_run, tmp_path, files, capsys):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    known = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(known | {"steps": 264}))
    predict.main([str(run), files[0], "--json"])
    printed = capsys.readouterr()
    assert printed.err == f"note: {run} is unfinished: it has come to step 7 of 264.\n"
    assert rows(printed.out)[0]["file"] == files[0]


def damaged(run):
    for file in (run / "checkpoints").rglob("*"):
        if file.is_file() and file.name != "seal.json":
            file.write_bytes(b"")


@pytest.mark.parametrize(
    ("prepare", "arguments", "said"),
    [
        (lambda run: None, ["{run}/missing", "a.png"], "does not exist"),
        (lambda run: (run / "config.json").unlink(), ["{run}", "a.png"], "is not a run: it holds no config.json"),
        (lambda run: (run / "config.json").write_text("{"), ["{run}", "a.png"], "config.json is damaged"),
        (damaged, ["{run}", "a.png"], "is readable: 7.\nBring one back from a copy"),
        (lambda run: shutil.rmtree(run / "checkpoints"), ["{run}", "a.png"], "holds no checkpoint. Start its training"),
        (lambda run: None, ["{run}", "a.png", "--checkpoint", "3"], "no checkpoint of step 3. There are: 7."),
        (
            lambda run: None,
            ["{run}", "a.png", "--checkpoint", "first"],
            "expected best, last, or a step. There are: 7.",
        ),
        (lambda run: None, ["{run}"], "no file is named: python -m deq_jax.predict RUN FILE..."),
        (lambda run: None, [], "RUN"),
        (lambda run: None, ["{run}", "a.png", "--jsn"], "--jsn"),
    ],
)
def test_mistakes_end_with_status_2_and_two_lines_at_most(finished_run, tmp_path, capsys, prepare, arguments, said):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    prepare(run)
    with pytest.raises(SystemExit) as end:
        predict.main([argument.format(run=run) for argument in arguments])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert said in printed.err
    assert len(printed.err.splitlines()) <= 2


def test_a_run_of_another_task_is_refused(tmp_path, capsys):
    claim(tmp_path, training.fit(own_task(), out=tmp_path / "run", **QUICK | {"epochs": 1}).settings)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        predict.main([str(tmp_path / "run"), "a.png"])
    assert "holds a run of a task of one's own" in capsys.readouterr().err
