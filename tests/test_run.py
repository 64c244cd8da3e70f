import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from deq_jax.training import checkpoints
from deq_jax.training.build import build_model
from deq_jax.training.config import OptimizerConfig
from deq_jax.training.errors import NonFiniteLossError, UserError
from deq_jax.training.run import run
from deq_jax.training.step import create_state
from tests.runs import TINY_FIELDS, environment, records, tiny, without_times
from tests.test_metrics import CONTRACT

ROOT = Path(__file__).parents[1]
# One worker runs them all: they share one run and its compiled programs.
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
    return subprocess.Popen(
        [*command, *fields], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_lines(process, out, count):
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        path = out / "metrics.jsonl"
        if path.exists() and len(path.read_text().splitlines()) >= count:
            return
        time.sleep(0.01)
    pytest.fail(f"no {count} lines in {out}: {process.communicate()}")


def test_a_run_leaves_what_it_promises(finished_run):
    for name in ("config.json", "environment.json", "metrics.jsonl", "curves.png", "checkpoints"):
        assert (finished_run / name).exists()
    assert json.loads((finished_run / "environment.json").read_text())["parameters"] == 1642
    lines = records(finished_run)
    assert [(line["kind"], line["step"]) for line in lines] == [*(("train", k) for k in range(1, 8)), ("eval", 7)]
    assert all(line.keys() - {"step_seconds"} == CONTRACT for line in lines)
    assert {line["epoch"] for line in lines} == {1}
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    for line in lines[:-1]:
        assert 0 < line["step_seconds"] <= line["seconds"]
        assert None not in line.values()
    assert "step_seconds" not in lines[-1]


def test_a_finished_run_says_so_and_trains_nothing(finished_run, capsys):
    before = {path: path.stat().st_mtime_ns for path in (finished_run / "checkpoints").rglob("*")}
    lines = records(finished_run)
    assert run(tiny(finished_run)) == 0
    assert "after step 7 and" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (finished_run / "checkpoints").rglob("*")} == before
    assert records(finished_run) == lines


def test_max_steps_stops_with_a_checkpoint_and_an_evaluation_and_can_be_raised(finished_run, tmp_path):
    assert run(tiny(tmp_path, max_steps=4)) == 0
    stopped = records(tmp_path)
    assert [(line["kind"], line["step"]) for line in stopped[-2:]] == [("train", 4), ("eval", 4)]
    assert final_state(tmp_path).step == 4
    assert run(tiny(tmp_path)) == 0
    jax.tree.map(np.testing.assert_array_equal, final_state(finished_run), final_state(tmp_path))
    continued = [line for line in records(tmp_path) if not (line["kind"] == "eval" and line["step"] == 4)]
    assert without_times(continued) == without_times(records(finished_run))
    # Seconds go on where they stopped.
    assert records(tmp_path)[5]["seconds"] > stopped[-1]["seconds"]
    assert len(json.loads((tmp_path / "environment.json").read_text())["resumed"]) == 1


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
    assert run(tiny(killed, epochs=6)) == 0
    assert run(tiny(whole, epochs=6)) == 0
    assert_same_run(killed, whole)


def test_a_damaged_latest_checkpoint_costs_only_the_steps_since_the_one_before(finished_run, tmp_path, capsys):
    assert run(tiny(tmp_path, max_steps=3)) == 0
    assert run(tiny(tmp_path, max_steps=5)) == 0
    largest = max((tmp_path / "checkpoints" / "5").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"")
    assert run(tiny(tmp_path)) == 0
    assert "5 is damaged; continuing from step 3" in capsys.readouterr().err
    jax.tree.map(np.testing.assert_array_equal, final_state(finished_run), final_state(tmp_path))
    steps = [line["step"] for line in records(tmp_path) if line["kind"] == "train"]
    assert steps == [1, 2, 3, 4, 5, 6, 7]


def test_sigterm_stops_after_the_current_step_with_a_checkpoint(finished_run, tmp_path):
    # So many epochs that the signal comes in the middle however fast the machine is.
    process = start(tmp_path, "--epochs", "200", "--checkpoint-minutes", "100")
    wait_for_lines(process, tmp_path, 3)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "The same command continues" in out
    assert "Traceback" not in err
    last = max(line["step"] for line in records(tmp_path))
    assert final_state(tmp_path).step == last
    assert last < 1400


def test_another_configuration_in_the_same_folder_is_refused_before_anything_is_read(finished_run):
    config = dataclasses.replace(tiny(finished_run), seed=5, data_dir=Path("/nowhere"))
    with pytest.raises(UserError, match="seed 0 instead of 5"):
        run(config)


def test_a_batch_larger_than_the_data_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="--batch-size 2000 exceeds the 1,437 training images"):
        run(tiny(tmp_path, batch_size=2000))


def test_a_model_that_does_not_fit_the_images_is_a_user_error_and_claims_no_folder(tmp_path):
    config = tiny(tmp_path / "run")
    with pytest.raises(UserError, match="does not fit digits: pool must divide"):
        run(dataclasses.replace(config, model=dataclasses.replace(config.model, pool=3)))
    assert not (tmp_path / "run").exists()


def test_training_that_diverges_stops_and_names_the_last_good_checkpoint(tmp_path):
    # A rate that no number survives; a checkpoint after every step shows that the broken state is never saved.
    config = tiny(tmp_path, optimizer=OptimizerConfig(learning_rate=1e38), checkpoint_minutes=1e-6)
    with pytest.raises(NonFiniteLossError, match="not finite at step") as error:
        run(config)
    assert str(error.value).count("\n") <= 1
    assert error.value.status == 1
    last = records(tmp_path)[-1]
    assert f"the last good checkpoint is {tmp_path / 'checkpoints' / str(last['step'] - 1)}" in str(error.value)
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())[-1] == last["step"] - 1


def test_the_compilation_cache_of_the_user_goes_first():
    code = (
        "from deq_jax.training.compilation import use_persistent_cache; import jax; use_persistent_cache();"
        "print(jax.config.jax_compilation_cache_dir)"
    )
    plain = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    for extra, expected in (
        ({"JAX_COMPILATION_CACHE_DIR": "/there"}, "/there"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/deq_jax/xla"),
    ):
        printed = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=plain | extra, capture_output=True, text=True, check=True
        )
        assert printed.stdout.strip() == expected
