import json
import shutil
import statistics

import pytest
from matplotlib.image import imread

from benchmarks.report import tables, tolerances
from benchmarks.report.__main__ import main
from benchmarks.report.runs import read_run
from deq_jax.tasks.images.presets import PRESETS
from deq_jax.training.process import cli
from deq_jax.training.settings.record import differences
from tests.runs import records

pytestmark = pytest.mark.xdist_group("run")


@pytest.fixture
def runs(finished_run, tmp_path):
    """Three finished runs, of which two differ in the seed alone, and one that has only begun."""
    for name, seed, width in (("a", 0, 8), ("b", 1, 8), ("c", 0, 16)):
        shutil.copytree(finished_run, tmp_path / name)
        path = tmp_path / name / "config.json"
        config = json.loads(path.read_text())
        path.write_text(
            json.dumps(config | {"seed": seed, "out": name, "model": config["model"] | {"channels": width}})
        )
    for name, accuracy in (("a", 0.5), ("b", 0.52), ("c", 0.25)):
        path = tmp_path / name / "metrics.jsonl"
        lines = [line | ({"accuracy": accuracy} if line["kind"] == "eval" else {}) for line in records(tmp_path / name)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copytree(tmp_path / "a", tmp_path / "begun")
    path = tmp_path / "begun" / "metrics.jsonl"
    lines = records(tmp_path / "a")
    evaluation = lines[-1] | {"step": 3}  # as it is after an epoch, when more are to come
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines[:3], evaluation]))
    return tmp_path


def test_runs_that_differ_in_the_seed_alone_are_one_row(runs, tmp_path, capsys):
    main(runs, tmp_path / "RESULTS.md", tmp_path / "the accuracy.png")
    assert "3 of 4 runs were finished" in capsys.readouterr().out
    text = (tmp_path / "RESULTS.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row[3] for row in rows] == ["0, 1", "0"]
    assert rows[0][4] == f"51.00 ± {statistics.stdev([50, 52]):.2f}"
    assert rows[1][4] == "25.00"
    assert rows[0][0] == "1. digits, changed"
    assert "`model.channels` 16" in text
    assert "](the%20accuracy.png)" in text
    assert imread(tmp_path / "the accuracy.png").std() > 0.05


def test_the_numbers_are_those_of_the_run(runs):
    run = read_run(runs / "a")
    train = [line for line in records(runs / "a") if line["kind"] == "train"]
    assert run.minutes_until(3) == pytest.approx(sum(line["step_seconds"] for line in train[:3]) / 60)
    assert run.minutes == pytest.approx(sum(line["step_seconds"] for line in train) / 60)
    # A tenth of seven steps is one.
    assert run.mean("forward_iterations", is_late=False) == train[0]["forward_iterations"]
    assert run.mean("adjoint_iterations", is_late=True) == train[-1]["adjoint_iterations"]
    text = tables.page([[run]])
    assert f"{train[0]['forward_iterations']:.1f} + {train[0]['adjoint_iterations']:.1f}" in text
    assert "1,437 training and 360 test images; commit" in text
    assert "1,642" in text


@pytest.mark.long
def test_evaluations_at_other_tolerances_are_shown(runs, capsys):
    (runs / "c").rename(runs / "0")  # first of all, and its weights are not of the width that it claims
    tolerances.main(runs, tolerances=(1e-2, 1e-4), max_iter=50)
    assert f"warning: {runs / '0'} is left as it was, since it cannot be evaluated: " in capsys.readouterr().err
    assert not (runs / "0" / "evaluations.jsonl").exists()
    path = runs / "a" / "evaluations.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["tol"] for line in lines] == [1e-2, 1e-4]
    assert not (runs / "begun" / "evaluations.jsonl").exists()
    # Those of another split, and of a run that has since gone on, are not the finished run's.
    more = [lines[0] | {"split": "train", "accuracy": 0.111}, lines[0] | {"step": 1, "accuracy": 0.222}]
    lines[1]["accuracy"] = lines[0]["accuracy"] - 0.0125
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *more]))
    text = tables.page([[read_run(runs / "a")]])
    for line in lines:
        assert f"| 0 | {line['tol']:g} | 50 | {100 * line['accuracy']:.2f} | {line['forward_iterations']:.1f} |" in text
    assert "the accuracy of a run changes by 1.25 points at most" in text
    assert "11.10" not in text
    assert "22.20" not in text


def test_every_start_of_a_run_is_told(runs):
    path = runs / "a" / "environment.json"
    first = json.loads(path.read_text())
    later = first | {"git": {"commit": "f" * 40, "dirty": False}}
    path.write_text(json.dumps(first | {"resumed": [later, later]}))
    text = tables.page([[read_run(runs / "a")]])
    assert text.count("test images; commit") == 2
    assert "commit ffffffffffff;" in text
    assert "resumed 2 times" in text


def test_the_command_trains_the_same_run_again(runs):
    text = tables.page([[read_run(runs / "c")]])
    command = next(line for line in text.splitlines() if line.startswith("$ python train.py"))
    again = cli.parse(command.removeprefix("$ python train.py ").split(), PRESETS)
    assert differences(again, read_run(runs / "c").config) == {}
    assert f"$ python -m deq_jax.evaluate {again.out}" in text


def test_a_copy_of_a_run_is_no_further_seed(runs, tmp_path, capsys):
    shutil.copytree(runs / "a", runs / "a-backup")
    main(runs, tmp_path / "RESULTS.md", tmp_path / "accuracy.png")
    assert f"{runs / 'a-backup'} is left out, since {runs / 'a'} is the same run" in capsys.readouterr().err
    assert "51.00 ± " in (tmp_path / "RESULTS.md").read_text()


def test_accuracies_on_other_images_are_not_averaged(runs, tmp_path):
    path = runs / "b" / "environment.json"
    environment = json.loads(path.read_text())
    path.write_text(json.dumps(environment | {"data": environment["data"] | {"test_images": 100}}))
    main(runs, tmp_path / "RESULTS.md", tmp_path / "accuracy.png")
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| 52.00 |" in text
    assert "| 50.00 |" in text


@pytest.mark.parametrize("lost", [0, 3])
def test_a_run_that_lost_lines_is_left_out(runs, capsys, lost):
    path = runs / "c" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:lost] + lines[lost + 1 :]))
    main(runs, runs / "RESULTS.md", runs / "accuracy.png")
    printed = capsys.readouterr()
    assert "2 of 4 runs were finished" in printed.out
    assert "metrics.jsonl has not every one of its 7 steps" in printed.err


def test_recipes_of_the_same_preset_have_commands_of_their_own(runs):
    path = runs / "c" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_dir": "/where/it/was"}))
    one, other, changed = (read_run(runs / name) for name in "abc")
    unchanged = one._replace(config=PRESETS["digits"]())
    text = tables.page([[one, other], [unchanged], [unchanged], [changed]])
    commands = [line for line in text.splitlines() if line.startswith("$ ")]
    assert len(commands) == len(set(commands)) == 10
    assert "$ python -m deq_jax.evaluate runs/digits-0" not in tables.page([[one], [unchanged], [unchanged]])
    assert "$ python -m deq_jax.evaluate runs/digits-0" in tables.page([[one], [unchanged]])
    assert "/where/it/was" not in text
    assert "--data-dir DIR" in commands[-2]


def test_a_run_that_cannot_be_read_is_left_out(runs, capsys):
    (runs / "b" / "environment.json").write_text("{}")
    (runs / "c" / "config.json").write_text("{")
    main(runs, runs / "RESULTS.md", runs / "accuracy.png")
    printed = capsys.readouterr()
    assert "1 of 4 runs were finished" in printed.out
    assert printed.err.count("is left out, since it cannot be read") == 2


def test_without_a_finished_run_there_is_nothing_to_report(runs, tmp_path):
    with pytest.raises(SystemExit, match="no finished run below"):
        main(runs / "begun", tmp_path / "RESULTS.md", tmp_path / "accuracy.png")
