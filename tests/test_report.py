import json
import shutil
import statistics

import pytest
from matplotlib.image import imread

from benchmarks.report import tables
from benchmarks.report.__main__ import main
from benchmarks.report.runs import read_run
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
    path.write_text("\n".join(path.read_text().splitlines()[:3]) + "\n")
    return tmp_path


def test_runs_that_differ_in_the_seed_alone_are_one_row(runs, tmp_path, capsys):
    main(runs, tmp_path / "RESULTS.md", tmp_path / "accuracy.png")
    assert "3 of 4 runs were finished" in capsys.readouterr().out
    text = (tmp_path / "RESULTS.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row[3] for row in rows] == ["0, 1", "0"]
    assert rows[0][4] == f"51.00 ± {statistics.stdev([50, 52]):.2f}"
    assert rows[1][4] == "25.00"
    assert rows[0][0] == "1. digits, changed"
    assert "`model.channels` 16" in text
    assert "](accuracy.png)" in text
    assert imread(tmp_path / "accuracy.png").std() > 0.05


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


def test_further_evaluations_are_shown(runs):
    line = {"tol": 1e-4, "max_iter": 60, "accuracy": 0.875, "forward_iterations": 12.25, "forward_residual": 9e-5}
    (runs / "a" / "evaluations.jsonl").write_text(json.dumps(line) + "\n")
    assert "| 0 | 0.0001 | 60 | 87.50 | 12.2 | 9.0e-05 |" in tables.page([[read_run(runs / "a")]])


def test_without_a_finished_run_there_is_nothing_to_report(runs, tmp_path):
    with pytest.raises(SystemExit, match="no finished run below"):
        main(runs / "begun", tmp_path / "RESULTS.md", tmp_path / "accuracy.png")
