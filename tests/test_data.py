import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from deq_jax.tasks.images import data
from deq_jax.tasks.images.data import load, tfds
from deq_jax.training.errors import UserError

PREPARED = Path(__file__).parents[2] / "shared" / "data" / "tfds"
needs_cifar10 = pytest.mark.skipif(not PREPARED.is_dir(), reason="CIFAR-10 is not prepared in ../shared/data/tfds")


def test_digits_are_bytes_over_the_whole_range_split_by_class():
    train, test = load("digits", "train"), load("digits", "test")
    assert train.images.shape == (1437, 8, 8, 1)
    assert test.images.shape == (360, 8, 8, 1)
    for split in (train, test):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        assert (split.images.min(), split.images.max(), split.num_classes) == (0, 255, 10)
    # Stratified: a class has the same share of both splits, to within the one image that rounding costs.
    np.testing.assert_allclose(np.bincount(test.labels), np.bincount(train.labels) / 4, atol=1)


def test_the_splits_of_the_digits_are_fixed_and_share_no_image():
    again = load("digits", "test")
    np.testing.assert_array_equal(again.images, load("digits", "test").images)
    train, test = ({image.tobytes() for image in load("digits", split).images} for split in ("train", "test"))
    assert not train & test
    # Pinned: another split would make accuracies incomparable with those of earlier runs.
    assert again.labels[:10].tolist() == [1, 4, 8, 6, 5, 9, 9, 1, 3, 2]


@pytest.mark.parametrize(("name", "split"), [("mnist", "train"), ("digits", "validation")])
def test_an_unknown_data_set_or_split_is_a_user_error(name, split):
    with pytest.raises(UserError, match="there are: "):
        load(name, split)


@needs_cifar10
def test_prepared_cifar10_is_read_without_tensorflow():
    test = load("cifar10", "test", PREPARED)
    assert test.encoding in ("JPEG", "PNG")
    assert test.images.shape[1:] == (32, 32, 3)
    assert len(test.images) == len(test.labels)
    assert np.bincount(test.labels).tolist() == [len(test.labels) // 10] * 10
    # The mean over CIFAR-10 is 121 in 255; its own images, if decoded in the right order of channels, are reddish.
    red, green, blue = test.images.mean((0, 1, 2))
    assert red > green > blue
    assert 110 < test.images.mean() < 130
    assert "tensorflow" not in sys.modules


@needs_cifar10
def test_a_damaged_cifar10_is_a_user_error(tmp_path):
    shutil.copytree(PREPARED / "cifar10", tmp_path / "cifar10")
    shard = next(tmp_path.rglob("cifar10-test.array_record-*"))
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(UserError, match=r"test split of CIFAR-10 .* cannot be read") as error:
        load("cifar10", "test", tmp_path)
    assert str(error.value).count("\n") <= 1


def fill(folder, kind):
    if kind == "file":
        folder.write_text("")
    elif kind != "missing":
        folder.mkdir()
    if kind == "other data set":
        (folder / "mnist" / "3.0.1").mkdir(parents=True)
    elif kind == "unprepared":
        (folder / "cifar10" / "3.0.2").mkdir(parents=True)
    elif kind == "other version":
        version = folder / "cifar10" / "1.0.0"
        version.mkdir(parents=True)
        (version / "dataset_info.json").write_text("{}")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "does not exist"),
        ("empty", "is empty"),
        ("file", "is a file"),
        ("other data set", "holds mnist, no cifar10"),
        ("unprepared", "no prepared version"),
        ("other version", "no version that TFDS can read"),
    ],
)
def test_a_wrong_data_directory_is_said_in_two_lines_with_a_way_out(tmp_path, kind, said):
    folder = tmp_path / "data"
    fill(folder, kind)
    with pytest.raises(UserError) as error:
        load("cifar10", "train", folder)
    message = str(error.value)
    assert said in message
    assert str(folder) in message
    assert "python train.py digits" in message
    assert message.count("\n") <= 1


def test_the_folder_of_the_data_set_itself_is_recognised(tmp_path):
    version = tmp_path / "cifar10" / "3.0.2"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text("{}")
    for inside in (version, version.parent):
        with pytest.raises(UserError, match=f"its folder {tmp_path} does: give that"):
            load("cifar10", "train", inside)


def unprepared_builder(tmp_path, download_and_prepare=None):
    return types.SimpleNamespace(
        is_prepared=lambda: False, data_dir=tmp_path, download_and_prepare=download_and_prepare
    )


def test_without_tensorflow_an_unprepared_cifar10_names_the_extra_and_the_offline_preset(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"deq_jax\[tfds-prepare\][^\n]*\n.*python train.py digits"):
        tfds._require_ready("cifar10", unprepared_builder(tmp_path), None)


def test_without_a_network_the_offline_preset_is_named(tmp_path, monkeypatch):
    def download_and_prepare(**_):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds.importlib.util, "find_spec", lambda _: True)
    with pytest.raises(UserError, match=r"ConnectionError: no route to host[^\n]*\n.*python train.py digits"):
        tfds._require_ready("cifar10", unprepared_builder(tmp_path, download_and_prepare), None)


def test_digits_ask_for_no_folder():
    assert data.load("digits", "test", Path("/nowhere")).num_classes == 10
