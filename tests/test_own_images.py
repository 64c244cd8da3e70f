"""A folder of images of any kind becomes the splits of a task, in memory or as a stream, or a short error."""

import numpy as np
import pytest
from PIL import Image

from deq_jax.tasks.images.data import load, records
from deq_jax.tasks.images.data.form import Form, UnusableError, decoded
from deq_jax.tasks.images.data.split import is_test
from deq_jax.tasks.images.groups import DataConfig
from deq_jax.training.errors import UserError
from tests.pictures import encoded, shapes_folder

TWO = ("circle", "square")


def grey(value, mode="L", size=(4, 6)):
    return Image.new(mode, size, value)


def both(how):
    return load(how, "train"), load(how, "test")


# A folder.


def test_a_folder_is_split_by_class_always_alike_and_no_image_is_in_both(tmp_path):
    folder = shapes_folder(tmp_path / "shapes", 10, TWO)
    how = DataConfig(f"folder:{folder}")
    train, test = both(how)
    assert train.classes == test.classes == TWO
    assert train.image_shape == (64, 72, 3)
    assert np.bincount(train.labels).tolist() == [8, 8]
    assert np.bincount(test.labels).tolist() == [2, 2]
    seen = [image.tobytes() for image in (*train.images, *test.images)]
    assert len(set(seen)) == 20
    np.testing.assert_array_equal(load(how, "test").images, test.images)
    first = np.asarray(Image.open(folder / "circle" / "000.png"))
    assert first.tobytes() in seen


@pytest.mark.parametrize("name", ["test", "val"])
def test_a_folder_may_have_a_test_split_of_its_own(tmp_path, name):
    shapes_folder(tmp_path / "train", 3)
    shapes_folder(tmp_path / name, 2, TWO, seed=1)
    train, test = both(DataConfig(f"folder:{tmp_path}"))
    assert np.bincount(train.labels).tolist() == [3] * 5
    # Labels are those of the training split, though the test split has fewer classes.
    assert test.labels.tolist() == [train.classes.index(shape) for shape in TWO for _ in range(2)]
    assert test.classes == train.classes


def test_hidden_files_and_those_beside_the_classes_are_no_images(tmp_path):
    folder = shapes_folder(tmp_path, 2, TWO)
    for name in (".DS_Store", "README.md", "circle/.thumbs"):
        (folder / name).write_text("")
    (folder / ".cache").mkdir()
    assert load(f"folder:{folder}", "train").classes == TWO


def test_a_relative_folder_is_looked_for_in_the_data_directory(tmp_path, monkeypatch):
    shapes_folder(tmp_path / "shapes", 2, TWO)
    assert load("folder:shapes", "train", tmp_path).num_classes == 2
    monkeypatch.chdir(tmp_path)
    assert load("folder:shapes", "train").num_classes == 2


def test_every_class_gives_a_fifth_and_a_single_image_is_trained_on():
    labels = np.repeat(np.arange(4), [1, 2, 3, 50])
    np.testing.assert_array_equal(np.bincount(labels[is_test(labels)], minlength=4), [0, 1, 1, 10])


# Any size and mode.


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (grey(51), [51, 51, 51]),
        (grey(1, "1"), [255, 255, 255]),
        (grey((200, 10, 30), "RGB"), [200, 10, 30]),
        (grey((200, 10, 30), "RGB").quantize(4), [200, 10, 30]),
        (grey((200, 10, 30, 255), "RGBA"), [200, 10, 30]),
        (grey((200, 10, 30, 0), "RGBA"), [255, 255, 255]),  # what cannot be seen does not count
        (grey((7, 255), "LA"), [7, 7, 7]),
        (Image.fromarray(np.full((6, 4), 51 * 257, np.uint16)), [51, 51, 51]),
        (Image.fromarray(np.full((6, 4), 65535, np.uint16)), [255, 255, 255]),
    ],
)
def test_any_mode_becomes_bytes_of_colour(image, expected):
    pixels = decoded(encoded(image), Form(6, 4, 3))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.array(expected, np.uint8), (6, 4, 3)))


def test_colour_becomes_grey_where_asked_for():
    assert decoded(encoded(grey((200, 200, 200), "RGB")), Form(6, 4, 1)).tolist() == [[[200]] * 4] * 6


def test_images_are_resized_and_cropped_around_the_centre():
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 20:40] = 255  # the middle third, a square
    pixels = decoded(encoded(Image.fromarray(picture)), Form(10, 10, 3, resizes=True))
    assert pixels.min() > 230  # but for what the filter takes of the black beside it
    assert decoded(encoded(Image.fromarray(picture)), Form(8, 30, 3, resizes=True)).shape == (8, 30, 3)


def test_a_photograph_is_upright_and_a_large_one_decoded_small():
    picture = np.zeros((640, 320, 3), np.uint8)
    picture[:320] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 8  # to be turned by 90° against the clock
    turned = decoded(encoded(Image.fromarray(picture), "JPEG", exif=exif, quality=95), Form(16, 32, 3, resizes=True))
    assert turned[:, :15].min() > 250  # above has become left
    assert turned[:, 17:].max() < 5


def test_grey_images_stay_grey_and_sizes_that_differ_need_to_be_told(tmp_path):
    for name in TWO:
        (tmp_path / name).mkdir()
        for number in range(2):
            grey(number, size=(8, 8)).save(tmp_path / name / f"{number}.png")
    assert load(f"folder:{tmp_path}", "train").image_shape == (8, 8, 1)
    assert load(DataConfig(f"folder:{tmp_path}", size="5x6", channels=3), "train").image_shape == (5, 6, 3)
    grey(0, size=(9, 8)).save(tmp_path / "square" / "0.png")
    grey(0, size=(9, 8)).save(tmp_path / "square" / "1.png")
    with pytest.raises(UserError, match=r"square.*is 8×9 pixels, where others are 8×8 \(--data.size resizes them\)"):
        load(f"folder:{tmp_path}", "train")


# What is no image.


def spoilt(tmp_path):
    folder = shapes_folder(tmp_path / "shapes", 10, TWO)
    (folder / "circle" / "notes.txt").write_text("a circle")
    cut = folder / "square" / "003.png"
    cut.write_bytes(cut.read_bytes()[:100])
    (folder / "square" / "empty.jpg").write_bytes(b"")
    (folder / "square" / "more").mkdir()
    return folder


@pytest.mark.parametrize("in_memory", ["yes", "no"])
def test_files_that_are_no_images_are_named_or_skipped(tmp_path, capsys, in_memory):
    folder, counted = spoilt(tmp_path), 0
    with pytest.raises(UserError, match=r"circle/notes\.txt is no image that Pillow can read") as error:
        load(DataConfig(f"folder:{folder}", in_memory=in_memory), "train")
    assert str(error.value).endswith("\nRepair or remove what cannot be used, or say --data.bad-files skip.")
    assert str(error.value).count("\n") == 1
    for split in ("train", "test"):
        examples = load(DataConfig(f"folder:{folder}", in_memory=in_memory, bad_files="skip"), split).examples
        counted += len(examples.labels if in_memory == "yes" else examples[np.arange(len(examples))].labels)
    assert counted == 19  # of 23 entries, three of which hold no image and one half of one
    said = capsys.readouterr().err
    assert "files: " in said
    for name in ("notes.txt is no image", "003.png is truncated"):
        assert name in said or "more" in said


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_an_image_that_is_cut_off_is_told_from_a_whole_one(tmp_path, kind):
    rng = np.random.default_rng(0)
    whole = encoded(Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)), kind)
    assert decoded(whole, Form(40, 40, 3)).shape == (40, 40, 3)
    for share in (0.3, 0.8):
        with pytest.raises(UnusableError, match=r"truncated|damaged|no image"):
            decoded(whole[: int(share * len(whole))], Form(40, 40, 3))


def test_numbers_that_are_no_bytes_are_refused():
    with pytest.raises(UnusableError, match="floating-point"):
        decoded(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), Form(4, 4, 1))


def folder_of(kind, folder):
    if kind == "missing":
        return
    if kind == "file":
        folder.write_text("")
        return
    shapes_folder(folder, 2, TWO[: 1 if kind == "one class" else 2])
    if kind == "no classes":
        for name in TWO:
            for file in (folder / name).iterdir():
                file.rename(folder / f"{name}-{file.name}")
            (folder / name).rmdir()
    elif kind == "empty class":
        (folder / "ring").mkdir()
    elif kind == "class of texts":
        (folder / "ring").mkdir()
        (folder / "ring" / "a.txt").write_text("a ring")
    elif kind == "other test classes":
        (folder / "circle").rename(folder / "train")
        (folder / "train" / "a").mkdir()
        (folder / "train" / "b").mkdir()
        (folder / "test" / "c").mkdir(parents=True)
        for name in "ab":
            grey(0).save(folder / "train" / name / "0.png")
            for file in (folder / "train").glob("*.png"):
                file.unlink()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "does not exist. Expected DIR/CLASS/IMAGE"),
        ("file", "is a file. Expected DIR/CLASS/IMAGE"),
        ("no classes", "holds no folders, where every class is to have one"),
        ("one class", "holds one folder, circle, where every class"),
        ("empty class", "class ring is empty"),
        ("class of texts", "class ring has no images"),
        ("other test classes", "has classes that .* lacks: c. Give both the same"),
    ],
)
def test_a_folder_that_is_none_of_images_by_class_is_said_in_a_line(tmp_path, kind, said):
    folder = tmp_path / "data"
    folder_of(kind, folder)
    with pytest.raises(UserError, match=said) as error:
        load(f"folder:{folder}", "test")
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


# In memory, or not.


def test_a_stream_gives_what_memory_holds(tmp_path):
    folder = shapes_folder(tmp_path / "shapes", 10, TWO)
    held, streamed = (load(DataConfig(f"folder:{folder}", size="16", in_memory=how), "train") for how in ("auto", "no"))
    assert held._replace(examples=None) == streamed._replace(examples=None)
    rows = np.array([3, 11, 3, 0])
    streamed.examples.expect(rows)
    for _ in range(2):  # once read in advance, once not
        batch = streamed.examples[rows]
        np.testing.assert_array_equal(batch.images, held.images[rows])
        np.testing.assert_array_equal(batch.labels, held.labels[rows])
    assert len(streamed.examples) == len(held.labels) == 16


def test_what_is_expected_and_never_asked_for_is_given_up(tmp_path):
    stream = load(DataConfig(f"folder:{shapes_folder(tmp_path, 10, TWO)}", in_memory="no"), "train").examples
    for row in range(16):
        stream.expect(np.array([row]))
    assert len(stream._ahead) == 4
    assert stream[np.array([0])].labels.tolist() == [0]


def test_what_does_not_fit_streams_by_itself(tmp_path, monkeypatch):
    how = DataConfig(f"folder:{shapes_folder(tmp_path, 5, TWO)}")
    monkeypatch.setattr(records, "AUTO_BYTES", 8 * 64 * 72 * 3)
    assert isinstance(load(how, "train").examples, tuple)
    monkeypatch.setattr(records, "AUTO_BYTES", 8 * 64 * 72 * 3 - 1)
    assert not isinstance(load(how, "train").examples, tuple)


def test_an_image_that_breaks_in_the_midst_of_a_run_is_named(tmp_path):
    folder = shapes_folder(tmp_path, 5, TWO)
    stream = load(DataConfig(f"folder:{folder}", in_memory="no"), "train").examples
    for file in folder.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:80])
    with pytest.raises(UserError, match=r"00\d\.png is .*checkpoints stay; put the file right, and start it again"):
        stream[np.arange(2)]


def test_arrays_are_held_whole():
    with pytest.raises(UserError, match=r"--data\.in-memory no goes with folder:DIR and tfds:NAME; digits is read"):
        load(DataConfig("digits", in_memory="no"), "train")
