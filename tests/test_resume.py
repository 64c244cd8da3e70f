import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from deq_jax.tasks.images.build import build_model
from deq_jax.tasks.images.groups import AugmentationConfig, EvaluationConfig, ModelConfig
from deq_jax.tasks.presets import train
from deq_jax.training.disk import checkpoints
from deq_jax.training.errors import UserError
from deq_jax.training.settings.solves import EarlyConfig, SolverConfig
from deq_jax.training.settings.update import OptimizerConfig, PenaltyConfig
from deq_jax.training.steps.step import create_state
from tests.runs import TINY_FIELDS, records, tiny, without_times

ROOT = Path(__file__).parents[1]
# One worker runs them all, and those of test_run.py: they share one run and its compiled programs.
pytestmark = pytest.mark.xdist_group("run")


def final_state(out):
    model = build_model(tiny(out), (8, 8, 1), 10)
    return checkpoints.restore(out, like=create_state(model, optax.adam(optax.constant_schedule(1e-3)))).state


def assert_same_run(one, other):
    """The same parameters, statistics and moments to the last bit, and the same account of how they came about."""
    jax.tree.map(np.testing.assert_array_equal, final_state(one), final_state(other))
    assert without_times(records(one)) == without_times(records(other))


def start(out, *fields):
    """train.py as a process of its own, checkpointing after almost every step."""
    command = [sys.executable, "train.py", "digits", "--out", str(out), *TINY_FIELDS, "--checkpoint-minutes", "1e-6"]
    return subprocess.Popen([*command, *fields], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_lines(process, out, count):
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        path = out / "metrics.jsonl"
        if path.exists() and len(path.read_text().splitlines()) >= count:
            return
        time.sleep(0.01)
    pytest.fail(f"no {count} lines in {out}: {process.communicate()}")


def test_a_finished_run_says_so_and_trains_nothing(finished_run, capsys):
    before = {path: path.stat().st_mtime_ns for path in (finished_run / "checkpoints").rglob("*")}
    lines = records(finished_run)
    assert train(tiny(finished_run)) == 0
    assert "after step 7 and" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (finished_run / "checkpoints").rglob("*")} == before
    assert records(finished_run) == lines


def test_a_finished_run_is_only_read(finished_run, monkeypatch, capsys):
    """So one in a read-only folder says that it is finished, too."""

    def entries():
        paths = [finished_run, *finished_run.rglob("*")]
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}

    before = entries()
    (finished_run / ".lock").unlink()
    opened = Path.open

    def open_to_read(path, mode="r", *arguments, **options):
        if finished_run in path.parents and not mode.startswith("r"):
            raise OSError(30, "Read-only file system", str(path))
        return opened(path, mode, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_to_read)
        assert train(tiny(finished_run)) == 0
    assert "Nothing to do" in capsys.readouterr().out
    after = entries()
    assert before.pop(finished_run / ".lock")
    # The folder itself has lost its lock just now.
    assert {**before, finished_run: None} == {**after, finished_run: None}


def test_fewer_max_steps_than_taken_only_evaluate(tmp_path, capsys):
    assert train(tiny(tmp_path, max_steps=6)) == 0
    # As a signal in the middle of an epoch leaves it: a checkpoint, and no evaluation yet.
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines[:-1]))
    assert train(tiny(tmp_path, max_steps=1)) == 0
    assert "Finished: test accuracy" in capsys.readouterr().out
    assert [(line["kind"], line["step"]) for line in records(tmp_path)[-2:]] == [("train", 6), ("eval", 6)]


def test_a_run_that_lost_its_checkpoints_starts_anew_and_keeps_its_metrics(finished_run, tmp_path, capsys):
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints")
    assert train(tiny(tmp_path)) == 0
    assert "holds no checkpoint; starting anew" in capsys.readouterr().err
    assert (tmp_path / "metrics-0.jsonl").read_bytes() == (finished_run / "metrics.jsonl").read_bytes()
    assert_same_run(tmp_path, finished_run)


def test_max_steps_stops_with_a_checkpoint_and_an_evaluation_and_can_be_raised(finished_run, tmp_path):
    assert train(tiny(tmp_path, max_steps=4)) == 0
    stopped = records(tmp_path)
    assert [(line["kind"], line["step"]) for line in stopped[-2:]] == [("train", 4), ("eval", 4)]
    assert final_state(tmp_path).step == 4
    assert train(tiny(tmp_path)) == 0
    jax.tree.map(np.testing.assert_array_equal, final_state(finished_run), final_state(tmp_path))
    continued = [line for line in records(tmp_path) if not (line["kind"] == "eval" and line["step"] == 4)]
    assert without_times(continued) == without_times(records(finished_run))
    # Seconds go on where they stopped.
    assert records(tmp_path)[5]["seconds"] > stopped[-1]["seconds"]
    assert len(json.loads((tmp_path / "environment.json").read_text())["resumed"]) == 1


@pytest.mark.long
def test_a_run_with_every_switch_on_is_continued_exactly(tmp_path, finished_run):
    """Augmentation, averages, and phases of the run, one of which ends where the run was stopped."""

    def everything(name, **changes):
        return tiny(
            tmp_path / name,
            label_smoothing=0.1,
            average_decay=0.9,
            model=ModelConfig(
                kind="deq",
                channels=8,
                inner_channels=8,
                num_groups=2,
                pool=None,
                cell="pre-activation",
                max_gain=1.0,
                stem=(8,),
                stem_factors=(2,),
            ),
            solver=SolverConfig(tol=1e-6, max_iter=6, m=3),
            early=EarlyConfig(share=0.4, adjoint_kind="phantom", max_iter=2),
            penalty=PenaltyConfig(weight=0.1, share=0.5, start=0.4),
            optimizer=OptimizerConfig(method="adamw", schedule="onecycle", weight_decay=0.1, clip=1.0),
            augmentation=AugmentationConfig(flip=True, shift=1),
            evaluation=EvaluationConfig(flip=True, tol=1e-2, max_iter=20, radius_images=4),
            **changes,
        )

    def seen(name):
        return without_times(line for line in records(tmp_path / name) if line["step"] != 3 or line["kind"] == "train")

    assert train(everything("whole")) == 0
    assert train(everything("parts", max_steps=3)) == 0
    assert train(everything("parts")) == 0
    assert seen("whole") == seen("parts")
    lines = seen("whole")
    assert [line["forward_iterations"] <= 2 for line in lines[:-1]] == [True] * 3 + [False] * 4
    assert [line["adjoint_iterations"] == 5 for line in lines[:-1]] == [True] * 3 + [False] * 4
    assert ["penalty" in line for line in lines] == [False, False, False, True, False, True, False, False]
    assert {"spectral_radius", "spectral_radius_max"} <= lines[-1].keys()


@pytest.mark.long
def test_a_run_killed_outright_goes_on_as_if_nothing_had_happened(tmp_path, finished_run):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(killed, "--epochs", "6")
    wait_for_lines(process, killed, 10)
    process.kill()
    process.communicate()
    lines = (killed / "metrics.jsonl").read_text().splitlines()
    assert len(lines) < 48, "killed too late to show anything"
    # What a crash of the machine adds: a torn last line, a folder half written.
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    (killed / "checkpoints" / "41.orbax-checkpoint-tmp").mkdir()
    for out in (killed, whole):  # each a process of its own, as the one that was killed
        start(out, "--epochs", "6").communicate()
        assert (out / "checkpoints" / "42").exists()
    assert_same_run(killed, whole)


@pytest.mark.long
def test_a_damaged_latest_checkpoint_costs_only_the_steps_since_the_one_before(finished_run, tmp_path, capsys):
    assert train(tiny(tmp_path, max_steps=3)) == 0
    assert train(tiny(tmp_path, max_steps=5)) == 0
    largest = max((tmp_path / "checkpoints" / "5").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"")
    assert train(tiny(tmp_path)) == 0
    assert "5 is damaged; continuing from step 3" in capsys.readouterr().err
    jax.tree.map(np.testing.assert_array_equal, final_state(finished_run), final_state(tmp_path))
    steps = [line["step"] for line in records(tmp_path) if line["kind"] == "train"]
    assert steps == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.long
def test_a_run_whose_output_nobody_reads_any_more_goes_on(tmp_path):
    with start(tmp_path) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=120) == 0
    assert records(tmp_path)[-1]["step"] == 7


@pytest.mark.long
def test_other_data_are_refused(tmp_path):
    assert train(tiny(tmp_path, max_steps=3)) == 0
    path = tmp_path / "environment.json"
    known = json.loads(path.read_text())
    other = {"training_images": 1000, "encoding": "JPEG"}
    for changes, said in (
        (other, "1,000 training and 360 test images, stored as JPEG; now it is 1,437"),
        ({"digest": "0"}, "1,437 training and 360 test images; now it is others"),
    ):
        path.write_text(json.dumps(known | {"data": known["data"] | changes}))
        with pytest.raises(UserError, match=said):
            train(tiny(tmp_path))
    # A run of before there was a digest goes on, and has one from then on.
    path.write_text(json.dumps(known | {"data": {"training_images": 1437}}))
    assert train(tiny(tmp_path, max_steps=4)) == 0
    resumed = json.loads(path.read_text())
    assert resumed["resumed"][0]["data"] == known["data"]
    resumed["resumed"][0]["data"]["digest"] = "0"
    path.write_text(json.dumps(resumed))
    with pytest.raises(UserError, match="was trained on other data"):
        train(tiny(tmp_path))
    # One that has no checkpoint has been trained on nothing yet.
    shutil.rmtree(tmp_path / "checkpoints")
    assert train(tiny(tmp_path, max_steps=1)) == 0
    assert json.loads(path.read_text())["data"] == known["data"]


@pytest.mark.long
def test_lost_lines_of_metrics_are_told(tmp_path, capsys):
    assert train(tiny(tmp_path, max_steps=4)) == 0
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[2:]))
    assert train(tiny(tmp_path)) == 0
    assert "metrics.jsonl lacks 2 of the first 4 steps" in capsys.readouterr().err


@pytest.mark.long
def test_sigterm_stops_after_the_current_step_with_a_checkpoint(finished_run, tmp_path):
    # So many epochs that the signal comes in the middle however fast the machine is.
    process = start(tmp_path, "--epochs", "200", "--checkpoint-minutes", "100")
    wait_for_lines(process, tmp_path, 3)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "Started again, it goes on" in out
    assert "Traceback" not in err
    last = max(line["step"] for line in records(tmp_path))
    assert final_state(tmp_path).step == last
    assert last < 1400
