"""Runs side by side in a section of RESULTS.md."""

import json
import shutil

import pytest

from benchmarks.report import beside
from deq_jax.training.disk import metrics


@pytest.fixture
def runs(finished_run, tmp_path):
    """The same run twice, of two seeds and accuracies."""

    def copied(seed, accuracy):
        folder = tmp_path / f"run-{seed}"
        shutil.copytree(finished_run, folder)
        config = json.loads((folder / "config.json").read_text()) | {"seed": seed}
        (folder / "config.json").write_text(json.dumps(config))
        environment = json.loads((folder / "environment.json").read_text())
        command = ["train.py", "digits", "--quiet", "--data-dir=D", "--seed", str(seed), "--epochs", "1", "--out", "O"]
        (folder / "environment.json").write_text(json.dumps(environment | {"command": command}))
        lines = metrics.read(folder / "metrics.jsonl")
        evaluated = lines[-1] | {"accuracy": accuracy}
        written = [json.dumps(line) for line in (*lines[:-1], evaluated)]
        (folder / "metrics.jsonl").write_text("\n".join(written) + "\n")
        return folder

    return [copied(0, 0.5), copied(1, 0.6)]


def test_runs_that_differ_in_the_seed_alone_are_one_row_and_the_rest_of_the_page_stays(runs, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Results\n")
    for _ in range(2):
        beside.main("Digits", runs, out=page, note="A note.")
    lines = page.read_text().splitlines()
    assert lines[0] == "# Results"
    assert lines.count("## Digits") == lines.count("A note.") == 1
    (row,) = [line for line in lines if line.startswith("| `")]
    assert row.startswith("| `python train.py digits --epochs 1` | 1,642 | 7 | 0, 1 | 55.00 ± 7.07 | ")


def test_a_row_means_over_the_steps_that_it_names_and_a_seed_counts_once(runs, tmp_path):
    folder = runs[0]
    lines = metrics.read(folder / "metrics.jsonl")
    last = max(line["step"] for line in lines)
    for line in lines:
        if line["kind"] == "train":
            line |= {"step_seconds": 60.0, "forward_iterations": float(line["step"]), "forward_converged": 0.5}
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (row,) = [line for line in beside.section([beside.trained(folder)]).splitlines() if line.startswith("| `")]
    minutes, evaluations, shares = row.strip("| ").split(" | ")[-3:]
    assert minutes == f"{last:.1f}"
    assert evaluations.startswith(f"{last:.1f} + ")
    assert shares.startswith("50.00 + ")
    with pytest.raises(SystemExit, match="was given twice: the same run"):
        beside.main("Digits", [folder, folder], out=tmp_path / "page.md")


def test_a_training_from_python_is_told_by_its_own_program(runs):
    environment = json.loads((runs[0] / "environment.json").read_text())
    changed = json.dumps(environment | {"command": ["some/where/mine.py", "--width", "3"]})
    (runs[0] / "environment.json").write_text(changed)
    assert beside.trained(runs[0]).command == "python mine.py --width 3"


def test_a_run_that_is_none_or_has_not_ended_is_refused(runs, tmp_path):
    with pytest.raises(SystemExit, match="is no run"):
        beside.main("Digits", [tmp_path], out=tmp_path / "page.md")
    (runs[1] / "environment.json").write_text("{}")
    with pytest.raises(SystemExit, match="is no run, or is damaged"):
        beside.main("Digits", runs, out=tmp_path / "page.md")
    lines = (runs[0] / "metrics.jsonl").read_text().splitlines()
    (runs[0] / "metrics.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(SystemExit, match="has not come to its end"):
        beside.main("Digits", [runs[0]], out=tmp_path / "page.md")
    assert not (tmp_path / "page.md").exists()
