"""Any image classification that TFDS has prepared becomes the splits of a task, or a short error."""

import json
import sys

import numpy as np
import pytest

from deq_jax.tasks.images.data import load
from deq_jax.tasks.images.data.split import is_test
from deq_jax.tasks.images.groups import DataConfig
from deq_jax.training.errors import UserError
from tests.pictures import drawn, encoded

NAMES = ["circle", "square", "ring"]
LABELS = [0, 1, 2] * 5


def prepared(folder, *, splits=("train", "test"), labels=LABELS, label="label", lost=None):
    """folder/mine/1.0.0 as TFDS prepares a data set, written without TensorFlow."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_generated_pb2, tf_feature_generated_pb2

    home = folder / "mine" / "1.0.0"
    home.mkdir(parents=True)
    kinds = {"label": tfds.features.ClassLabel(names=NAMES), "number": tfds.features.Scalar(np.int64)}
    features = tfds.features.FeaturesDict({"picture": tfds.features.Image(shape=(None, None, 3)), "kind": kinds[label]})
    features.save_config(home)
    rng = np.random.default_rng(0)
    for split in splits:
        writer = ArrayRecordWriter(str(home / f"mine-{split}.array_record-00000-of-00001"), "group_size:1")
        for row, number in enumerate(labels):
            picture = encoded(drawn(NAMES[number % 3], rng, (40, 40)))
            values = {
                "picture": {"bytes_list": {"value": [] if row == lost else [picture]}},
                "kind": {"int64_list": {"value": [number]}},
            }
            feature = {name: tf_feature_generated_pb2.Feature(**value) for name, value in values.items()}
            example = tf_example_generated_pb2.Example(features=tf_feature_generated_pb2.Features(feature=feature))
            writer.write(example.SerializeToString())
        writer.close()
    info = {
        "name": "mine",
        "version": "1.0.0",
        "fileFormat": "array_record",
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": "1000",
                "shardLengths": [str(len(labels))],
            }
            for split in splits
        ],
    }
    (home / "dataset_info.json").write_text(json.dumps(info))
    return folder


def test_a_prepared_set_of_any_name_is_read_without_tensorflow(tmp_path):
    train, test = (load("tfds:mine", split, prepared(tmp_path / split)) for split in ("train", "test"))
    assert train.classes == test.classes == tuple(NAMES)
    assert (train.image_shape, train.encoding) == ((40, 40, 3), "PNG")
    assert train.labels.tolist() == test.labels.tolist() == LABELS
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(("splits", "counts"), [(("train",), (12, 3)), (("train", "validation"), (15, 15))])
def test_without_a_test_split_the_validation_split_serves_or_a_fifth_of_every_class(tmp_path, splits, counts):
    folder = prepared(tmp_path, splits=splits)
    train, test = (load("tfds:mine", split, folder) for split in ("train", "test"))
    assert (len(train.labels), len(test.labels)) == counts
    if len(splits) == 1:
        whole = np.array(LABELS)
        np.testing.assert_array_equal(test.labels, whole[is_test(whole)])
        assert not {i.tobytes() for i in train.images} & {i.tobytes() for i in test.images}


def test_a_stream_gives_what_memory_holds(tmp_path):
    folder = prepared(tmp_path)
    held, streamed = (load(DataConfig("tfds:mine", in_memory=how, size="24"), "train", folder) for how in ("yes", "no"))
    batch = streamed.examples[np.array([4, 0, 14])]
    np.testing.assert_array_equal(batch.images, held.images[[4, 0, 14]])
    assert batch.labels.tolist() == [1, 0, 2]
    assert batch.images.shape == (3, 24, 24, 3)


def test_a_record_that_has_lost_its_image_is_named(tmp_path):
    folder = prepared(tmp_path, lost=4)
    said = "image 4 of the train split of tfds:mine is empty"
    with pytest.raises(UserError, match=said):
        load("tfds:mine", "train", folder)
    kept = load(DataConfig("tfds:mine", bad_files="skip"), "train", folder)
    assert kept.labels.tolist() == LABELS[:4] + LABELS[5:]
    streamed = load(DataConfig("tfds:mine", in_memory="no"), "train", folder).examples
    assert streamed[np.array([3, 5])].labels.tolist() == [0, 2]
    with pytest.raises(UserError, match=said):
        streamed[np.array([3, 4])]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "number"}, r"tfds:mine is no image classification: a record has .*kind \(Scalar\)"),
        ({"labels": [0, 1, -1]}, "labels of the train split of tfds:mine are out of range: one is -1"),
        ({"labels": [0, 1, 3]}, "one is 3, but there are 3 classes"),
        ({"splits": ("test",)}, "has no split train, only test"),
    ],
)
def test_another_kind_of_data_is_said_in_two_lines_at_most(tmp_path, change, said):
    with pytest.raises(UserError, match=said) as error:
        load("tfds:mine", "train", prepared(tmp_path, **change))
    assert str(error.value).count("\n") <= 1


def test_a_set_that_is_not_prepared_or_that_there_is_not_is_a_user_error(tmp_path):
    prepared(tmp_path)
    with pytest.raises(UserError, match=r"holds mine, no mnist\. Expected mnist/VERSION/dataset_info\.json") as error:
        load("tfds:mnist", "train", tmp_path)
    assert "Leave --data-dir out to download mnist" in str(error.value)
    with pytest.raises(
        UserError, match=r"TFDS does not open 'no_such_set' \(DatasetNotFoundError: Dataset no_such_set"
    ):
        load("tfds:no_such_set", "train")


def test_a_damaged_set_is_a_user_error(tmp_path):
    shard = next(prepared(tmp_path).rglob("mine-train*"))
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(UserError, match=r"the train split of mine in .* cannot be read"):
        load("tfds:mine", "train", tmp_path)
