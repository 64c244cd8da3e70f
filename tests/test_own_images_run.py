"""Runs on images of one's own: started from the command line, streamed, stopped, gone on, and told from others."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deq_jax import training
from deq_jax.evaluate import evaluate_run
from deq_jax.tasks.images.config import Config, located
from deq_jax.tasks.images.groups import DataConfig
from deq_jax.tasks.images.presets import PRESETS
from deq_jax.tasks.presets import train
from deq_jax.training.disk.folder import read_config
from deq_jax.training.errors import UserError
from tests.pictures import SHAPES, shapes_folder
from tests.runs import records, tiny, without_times

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("run")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return shapes_folder(tmp_path_factory.mktemp("data") / "shapes", 10)


def on(folder, out, in_memory="auto", **changes):
    """Two epochs of four steps on 40 images of 8×8."""
    how = DataConfig(f"folder:{folder}", size="8", in_memory=in_memory)
    changes = {"epochs": 2, "batch_size": 10} | changes
    return dataclasses.replace(tiny(out), data=how, **changes)


@pytest.mark.long
def test_the_preset_tells_shapes_apart_by_far_more_than_chance(tmp_path):
    folder = shapes_folder(tmp_path / "shapes", 40)
    preset = PRESETS["images"]()
    config = dataclasses.replace(
        preset,
        out=tmp_path / "run",
        data=DataConfig(f"folder:{folder}", size="32"),
        epochs=12,
        evaluation=dataclasses.replace(preset.evaluation, every=12, radius_images=0),
    )
    assert train(config) == 0
    # By chance 0.2; 0.63 to 0.78 of seeds 0 to 2.
    assert records(tmp_path / "run")[-1]["accuracy"] > 0.5


@pytest.mark.long
def test_a_stream_trains_as_memory_does_and_goes_on_at_its_very_batch(shapes, tmp_path):
    assert train(on(shapes, tmp_path / "whole")) == 0
    assert train(on(shapes, tmp_path / "parts", "no", max_steps=3)) == 0
    assert train(on(shapes, tmp_path / "parts", "no", max_steps=6)) == 0
    assert train(on(shapes, tmp_path / "parts", "yes")) == 0  # how they are held may change
    whole, parts = (without_times(records(tmp_path / name)) for name in ("whole", "parts"))
    steps = [[line for line in lines if line["kind"] == "train"] for lines in (whole, parts)]
    assert steps[0] == steps[1]
    assert whole[-1] == parts[-1]


@pytest.mark.long
def test_a_run_keeps_the_names_of_its_classes_and_can_be_opened_again(shapes, tmp_path):
    assert train(on(shapes, tmp_path)) == 0
    data = json.loads((tmp_path / "environment.json").read_text())["data"]
    assert data["classes"] == list(SHAPES)
    assert data["image_shape"] == [8, 8, 3]
    run = training.load(tmp_path)
    assert run.settings.data.source == f"folder:{shapes}"
    assert evaluate_run(tmp_path)["accuracy"] == records(tmp_path)[-1]["accuracy"]
    assert evaluate_run(tmp_path, split="train")["count"] == 40


@pytest.mark.long
def test_other_images_are_refused_when_a_run_is_continued(shapes, tmp_path):
    out = tmp_path / "run"
    mine = shutil.copytree(shapes, tmp_path / "mine")
    for in_memory in ("yes", "no"):
        assert train(on(mine, out, in_memory, max_steps=2)) == 0
        with pytest.raises(UserError, match=r"data\.source folder:.*mine instead of folder:.*shapes"):
            train(on(shapes, out, in_memory))
        (mine / "ring" / "000.png").rename(mine / "ring" / "zzz.png")
        with pytest.raises(
            UserError, match=r"was trained on other data: 40 training and 10 test images.*now it is oth"
        ):
            train(on(mine, out, in_memory))
        (mine / "ring").rename(mine / "torus")
        with pytest.raises(
            UserError, match=r"Give folder:.*mine as it was when the run was started, or choose another"
        ):
            train(on(mine, out, in_memory))
        shutil.rmtree(mine)
        shutil.copytree(shapes, mine)


@pytest.mark.long
def test_images_that_have_moved_are_found_by_the_data_directory(shapes, tmp_path, monkeypatch):
    here, there, out = tmp_path / "here", tmp_path / "there", tmp_path / "run"
    shutil.copytree(shapes, here / "shapes")
    monkeypatch.chdir(here)
    config = located(on("shapes", out, max_steps=2))
    assert config.data_dir == here
    assert train(on("shapes", out, max_steps=2)) == 0
    monkeypatch.chdir(tmp_path)
    assert evaluate_run(out)["count"] == 10
    shutil.move(here, there)
    assert evaluate_run(out, there)["count"] == 10
    assert train(on("shapes", out, max_steps=3, data_dir=there)) == 0


@pytest.mark.long
def test_an_npz_trains(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", images=rng.integers(0, 256, (40, 8, 8), np.uint8), labels=np.arange(40) % 4)
    config = dataclasses.replace(tiny(tmp_path / "run"), data=DataConfig(f"npz:{tmp_path / 'a.npz'}"), batch_size=16)
    assert train(config) == 0
    assert records(tmp_path / "run")[-1]["step"] == 2


def test_a_run_of_an_older_version_names_its_data_set_otherwise(tmp_path):
    config = tiny(tmp_path)
    values = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    del values["data"]
    (tmp_path / "config.json").write_text(json.dumps({"dataset": "digits"} | values))
    assert read_config(tmp_path, Config) == config
    assert config.dataset == "digits"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no images are named. Give --data.source folder:DIR"),
        (["--data.source", "flowers"], "data: unknown source 'flowers'; there are: digits, cifar10, folder:DIR"),
        (["--data.source", "zip:a"], "unknown source 'zip:a'"),
        (["--data.source", "folder:"], "unknown source 'folder:'"),
        (["--data.source", "folder:nowhere"], "folder nowhere does not exist. Expected DIR/CLASS/IMAGE"),
        (["--data.source", "npz:nowhere.npz"], "nowhere.npz does not exist; expected an .npz file"),
        (["--data.source", "tfds:mnist", "--data-dir", "nowhere"], "data directory nowhere does not exist"),
        (["--data.size", "big"], "data: size must be a side in pixels or HEIGHTxWIDTH, such as 64 or 48x64"),
        (["--data.workers", "0"], "data: workers must be positive"),
        (["--data.channels", "2"], "invalid choice '2' for argument '--data.channels'"),
    ],
)
def test_a_mistake_ends_with_status_2_and_a_line_or_two(tmp_path, arguments, said):
    command = [sys.executable, "train.py", "images", "--out", str(tmp_path / "run"), *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.splitlines()) <= 2
    assert not (tmp_path / "run").exists()
