import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from deq_jax.evaluate import evaluate_run
from deq_jax.tasks.images.groups import AugmentationConfig, EvaluationConfig
from deq_jax.tasks.presets import train
from deq_jax.training.disk.lock import held
from deq_jax.training.errors import NonFiniteLossError, UserError, reported_errors
from deq_jax.training.programs import compile_programs
from deq_jax.training.settings.update import OptimizerConfig
from tests.runs import records, tiny
from tests.test_metrics import CONTRACT, SHARES

ROOT = Path(__file__).parents[1]
# One worker runs them all: they share one run and its compiled programs.
pytestmark = pytest.mark.xdist_group("run")


def test_a_run_leaves_what_it_promises(finished_run):
    for name in ("config.json", "environment.json", "metrics.jsonl", "curves.png", "checkpoints"):
        assert (finished_run / name).exists()
    assert json.loads((finished_run / "environment.json").read_text())["parameters"] == 1642
    lines = records(finished_run)
    assert [(line["kind"], line["step"]) for line in lines] == [*(("train", k) for k in range(1, 8)), ("eval", 7)]
    assert all(line.keys() == CONTRACT | {"step_seconds", *SHARES} for line in lines[:-1])
    assert lines[-1].keys() == CONTRACT | {"forward_converged"}
    assert {line["epoch"] for line in lines} == {1}
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    for line in lines[:-1]:
        assert 0 < line["step_seconds"] <= line["seconds"]
        assert None not in line.values()
    assert "step_seconds" not in lines[-1]


def test_an_evaluation_tells_how_contractive_the_cell_is(tmp_path):
    assert train(tiny(tmp_path, max_steps=1, evaluation=EvaluationConfig(radius_images=4))) == 0
    evaluated = records(tmp_path)[-1]
    assert 0 < evaluated["spectral_radius"] <= evaluated["spectral_radius_max"]


def test_a_run_that_another_process_trains_is_left_alone(finished_run):
    with held(finished_run), pytest.raises(UserError, match="another process is training in"):
        train(tiny(finished_run))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("metrics.jsonl", "error: Is a directory: {out}/metrics.jsonl."),
        ("environment.json", "error: cannot write to {out}: Is a directory: {out}/environment.json."),
    ],
)
def test_a_folder_in_a_files_place_is_said_in_a_line(tmp_path, capsys, name, said):
    assert train(tiny(tmp_path, max_steps=1)) == 0
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    capsys.readouterr()
    with pytest.raises(SystemExit) as end, reported_errors():
        train(tiny(tmp_path))
    assert end.value.code == 2
    assert capsys.readouterr().err == said.format(out=tmp_path) + "\n"


def test_another_configuration_in_the_same_folder_is_refused_before_anything_is_read(finished_run):
    config = dataclasses.replace(tiny(finished_run), seed=5, data_dir=Path("/nowhere"))
    with pytest.raises(UserError, match="seed 0 instead of 5"):
        train(config)


def test_a_batch_larger_than_the_data_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="batch_size 2000 exceeds the 1,437 training images"):
        train(tiny(tmp_path, batch_size=2000))


def test_a_model_that_does_not_fit_the_images_is_a_user_error_and_claims_no_folder(tmp_path):
    config = tiny(tmp_path / "run")
    with pytest.raises(UserError, match="does not fit digits: pool must divide"):
        train(dataclasses.replace(config, model=dataclasses.replace(config.model, pool=3)))
    assert not (tmp_path / "run").exists()


def checkpoints_of(out):
    return sorted(int(path.name) for path in (out / "checkpoints").iterdir() if path.name.isdigit())


@pytest.mark.long
def test_training_that_diverges_at_once_has_no_good_checkpoint(tmp_path):
    """A rate that no number survives: the first step is finite and leaves weights that are not of use."""
    config = tiny(tmp_path, optimizer=OptimizerConfig(learning_rate=1e38), checkpoint_minutes=1e-6)
    with pytest.raises(NonFiniteLossError, match="not finite at step 2; there is no good checkpoint yet") as error:
        train(config)
    assert str(error.value).count("\n") <= 1
    assert error.value.status == 1
    assert checkpoints_of(tmp_path) == []


@pytest.mark.long
def test_a_network_that_its_last_step_has_broken_is_no_result(tmp_path):
    """No training step follows that would notice; the test loss does."""
    with pytest.raises(NonFiniteLossError, match="test loss is not finite after step 1; there is no good checkpoint"):
        train(tiny(tmp_path, optimizer=OptimizerConfig(learning_rate=1e38), max_steps=1))
    assert checkpoints_of(tmp_path) == []
    assert records(tmp_path)[-1]["loss"] is None


def test_too_little_memory_is_said_in_two_lines(tmp_path, monkeypatch):
    def exhaust(*arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes.\nmore")

    monkeypatch.setattr("deq_jax.training.run._run", exhaust)
    with pytest.raises(UserError, match=r"smaller --batch-size.*\n.*allocating 5 bytes\.$"):
        train(tiny(tmp_path))


def test_a_platform_that_is_not_there_is_said(tmp_path):
    command = [sys.executable, "train.py", "digits", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "nowhere"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: JAX finds no device for JAX_PLATFORMS=nowhere: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_more_devices_than_there_are_are_refused(tmp_path):
    with pytest.raises(UserError, match="devices is 2, but JAX finds 1"):
        train(tiny(tmp_path / "run", devices=2))
    assert not (tmp_path / "run").exists()


def test_a_shift_beyond_the_image_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"--augmentation\.shift 8 exceeds images of 8×8 pixels"):
        train(tiny(tmp_path, augmentation=AugmentationConfig(shift=8)))


@pytest.mark.long
def test_training_that_diverges_later_names_the_last_good_checkpoint(tmp_path, monkeypatch):
    """Step 4 breaks the weights, which are saved before step 5 can notice: the third checkpoint is the last good."""

    def breaking(plan, state, step):
        (phase, train_step), *_ = compile_programs(plan, state, step).train_steps.items()

        def step_that_breaks(state, batch):
            state, measured = train_step(state, batch)
            broken = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)
            return (state._replace(params=broken) if state.step == 4 else state), measured

        return compile_programs(plan, state, step)._replace(train_steps={phase: step_that_breaks})

    monkeypatch.setattr("deq_jax.training.run.compile_programs", breaking)
    with pytest.raises(NonFiniteLossError, match="not finite at step 5") as error:
        train(tiny(tmp_path, checkpoint_minutes=1e-6))
    assert f"the last good checkpoint is {tmp_path / 'checkpoints' / '3'}." in str(error.value)
    assert checkpoints_of(tmp_path)[-1] == 3
    assert evaluate_run(tmp_path)["step"] == 3
    assert records(tmp_path)[-1]["loss"] is None


@pytest.mark.parametrize("looks", [1, 2, 3, 4])
def test_whenever_a_request_to_stop_is_seen_nothing_trained_is_lost(tmp_path, monkeypatch, looks):
    """A signal may come between any two lines: here it is seen by one look or another."""

    @contextmanager
    def seen_after_some_looks():
        count = itertools.count()
        yield lambda: signal.SIGTERM if next(count) >= looks else None

    monkeypatch.setattr("deq_jax.training.run.stop_requests", seen_after_some_looks)
    assert train(tiny(tmp_path)) == 128 + signal.SIGTERM
    steps = [line["step"] for line in records(tmp_path)]
    assert steps == list(range(1, looks + 1))
    assert checkpoints_of(tmp_path) == [looks]


def test_a_request_to_stop_before_the_first_step_trains_nothing(tmp_path, monkeypatch):
    @contextmanager
    def at_once():
        yield lambda: signal.SIGINT

    monkeypatch.setattr("deq_jax.training.run.stop_requests", at_once)
    assert train(tiny(tmp_path)) == 128 + signal.SIGINT
    assert records(tmp_path) == []


def test_an_explicit_network_reports_no_solve(tmp_path, capsys):
    config = tiny(tmp_path)
    train(dataclasses.replace(config, model=dataclasses.replace(config.model, kind="explicit")))
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert "evaluations" not in printed
    first, evaluation = records(tmp_path)[0], records(tmp_path)[-1]
    for line in (first, evaluation):
        assert line["forward_iterations"] == config.model.layers
        assert line["forward_residual"] is line["adjoint_iterations"] is line["adjoint_residual"] is None
        assert not line.keys() & {*SHARES, "spectral_radius"}
    result = evaluate_run(tmp_path)
    assert result["accuracy"] == evaluation["accuracy"]
    assert result["converged"] is None


def test_the_compilation_cache_of_the_user_goes_first():
    code = (
        "from deq_jax.training.process.compilation import use_persistent_cache; import jax; use_persistent_cache();"
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


@pytest.mark.long
def test_a_healthy_run_makes_no_nan_anywhere(tmp_path):
    with jax.debug_nans(True):
        assert train(tiny(tmp_path, max_steps=2)) == 0
