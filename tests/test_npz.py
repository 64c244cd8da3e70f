"""An .npz of images and labels becomes the splits of a task, or a short error."""

import numpy as np
import pytest

from deq_jax.tasks.images.data import load
from deq_jax.tasks.images.groups import DataConfig
from deq_jax.training.errors import UserError


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


IMAGES = np.arange(20 * 6 * 5 * 3, dtype=np.int64).astype(np.uint8).reshape(20, 6, 5, 3)
LABELS = np.arange(20) % 2


def test_an_npz_without_a_test_split_is_split_by_class(tmp_path):
    file = saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS, classes=np.array(["cat", "dog"]))
    train, test = (load(f"npz:{file}", split) for split in ("train", "test"))
    assert (train.classes, train.image_shape, train.encoding) == (("cat", "dog"), (6, 5, 3), None)
    assert np.bincount(train.labels).tolist() == [8, 8]
    assert len({image.tobytes() for image in (*train.images, *test.images)} ^ {i.tobytes() for i in IMAGES}) == 0
    for one in (train, test):
        for image, label in zip(one.images, one.labels, strict=True):
            assert LABELS[(image == IMAGES).all((1, 2, 3)).argmax()] == label


@pytest.mark.parametrize(
    "names", [("images", "labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test")]
)
def test_an_npz_may_have_a_test_split_of_its_own(tmp_path, names):
    arrays = (IMAGES[..., 0], LABELS[:, None], IMAGES[:4, ..., 0], LABELS[:4])
    file = saved(tmp_path / "a.npz", **dict(zip(names, arrays, strict=True)))
    train, test = (load(f"npz:{file}", split) for split in ("train", "test"))
    assert (len(train.images), len(test.images), train.classes) == (20, 4, ("0", "1"))
    np.testing.assert_array_equal(test.images[..., 0], IMAGES[:4, ..., 0])
    assert test.labels.tolist() == [0, 1, 0, 1]


def test_arrays_are_brought_to_the_form_that_is_asked_for(tmp_path):
    file = saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    assert load(DataConfig(f"npz:{file}", size="8", channels=1), "test").images.shape == (4, 8, 8, 1)
    assert load(DataConfig("digits", size="16", channels=3), "test").images.shape == (360, 16, 16, 3)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": IMAGES, "labels": LABELS}, "holds labels, pictures. Expected the arrays images and labels"),
        ({"images": IMAGES / 255, "labels": LABELS}, r"images of .* is float64; expected uint8, .*round\(\)"),
        ({"images": IMAGES.transpose(0, 3, 1, 2), "labels": LABELS}, r"shape \[20, 3, 6, 5\]; expected \[n, height"),
        ({"images": IMAGES[0], "labels": LABELS}, "6 images, but 20 labels"),
        ({"images": IMAGES[:19], "labels": LABELS}, "19 images, but 20 labels"),
        ({"images": IMAGES, "labels": LABELS.astype(float)}, r"labels of .* is float64\[20\]; expected whole numbers"),
        ({"images": IMAGES, "labels": np.eye(20)}, r"labels of .* is float64\[20, 20\]"),
        ({"images": IMAGES, "labels": LABELS + 1}, "out of range: they go from 1 to 2, and none is 0"),
        ({"images": IMAGES, "labels": LABELS * 2}, "out of range: they go from 0 to 2, and none is 1"),
        ({"images": IMAGES, "labels": LABELS - 1}, "out of range: they go from -1 to 0"),
        ({"images": IMAGES, "labels": LABELS + 1, "classes": ["a", "b"]}, "one is 2, but there are 2 classes, 0 to 1"),
        ({"images": IMAGES, "labels": LABELS * 0}, "has 1 class; two are the least"),
        (
            {"images": IMAGES, "labels": LABELS, "test_images": IMAGES, "test_labels": LABELS + 1},
            "test_labels of .* are out of range: one is 2, but there are 2 classes",
        ),
        ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES}, "lacks test_labels beside test_images"),
        ({"images": IMAGES, "labels": np.array([None] * 20)}, "its arrays hold Python objects"),
    ],
)
def test_an_npz_of_something_else_is_said_in_two_lines_at_most(tmp_path, arrays, said):
    file = saved(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=said) as error:
        load(f"npz:{file}", "test")
    assert str(error.value).count("\n") <= 1
    assert str(file) in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"no zip", b"PK\x03\x04 and then nothing"])
def test_what_is_no_npz_is_a_user_error(tmp_path, content):
    file = tmp_path / "a.npz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"does not exist; expected an \.npz file|cannot be read as an \.npz"):
        load(f"npz:{file}", "train")
