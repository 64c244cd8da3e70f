import dataclasses

import numpy as np
import pytest

from deq_jax.tasks.text.config import DataConfig, ModelConfig
from deq_jax.tasks.text.sources import File, read
from deq_jax.tasks.text.task import open_task
from deq_jax.tasks.text.vocabulary import Vocabulary, frequent
from deq_jax.tasks.text.windows import Windows, size, spread
from deq_jax.training import UserError
from tests.text import DATA, LINES, source, tiny

SAMPLE = "def über(x):\n\treturn  x  # ∞\r\n\n  end"


def test_tokens_are_the_text_again():
    vocabulary = frequent([File("lines", LINES.encode())], 20)
    assert {"\n    ", "return", "def"} <= set(vocabulary.pieces)
    files = [File("one", LINES.encode()), File("other", SAMPLE.encode())]
    numbers = vocabulary.encoded(files)
    assert vocabulary.decoded(numbers).decode() == LINES + SAMPLE
    assert vocabulary.sizes()[numbers].sum() == len((LINES + SAMPLE).encode())
    assert len(numbers) < 0.6 * len(LINES)
    assert numbers.max() < len(vocabulary) == 276


def test_bytes_are_any_file():
    content = bytes(range(256))
    numbers = Vocabulary().encoded([File("any", content)])
    assert numbers.tolist() == list(range(256))
    assert Vocabulary().decoded(numbers) == content


def test_the_standard_library_is_split_by_files_and_always_alike():
    splits = read(DataConfig())
    names = {split: {file.name for file in files} for split, files in splits.items()}
    assert not names["train"] & names["test"]
    assert {"ast.py", "json/decoder.py"} <= names["train"] | names["test"]
    sizes = {split: sum(len(file.content) for file in files) for split, files in splits.items()}
    assert 0.1 <= sizes["test"] / sum(sizes.values()) < 0.2
    assert read(DataConfig()) == splits
    assert read(DataConfig(split_seed=1)) != splits
    assert not [file for file in splits["train"] if "test" in file.name.split("/")]


def test_a_folder_is_read_as_it_is_laid_out(tmp_path):
    for name in ("b.txt", "deep/a.txt", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty").touch()
    splits = read(DataConfig(source=str(tmp_path)))
    assert sorted(file.name for files in splits.values() for file in files) == ["b.txt", "deep/a.txt"]
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    (tmp_path / "train/one").write_text("one")
    (tmp_path / "test/two").write_text("two")
    splits = read(DataConfig(source=str(tmp_path)))
    assert (splits["train"], splits["test"]) == ([File("one", b"one")], [File("two", b"two")])


def test_of_one_file_the_last_tenth_is_tested_on(tmp_path):
    splits = read(DataConfig(source=str(source(tmp_path))))
    [train], [test] = splits["train"], splits["test"]
    assert (train.content + test.content).decode() == LINES
    assert train.content.endswith(b"\n")
    assert 0.05 < len(test.content) / len(LINES) <= 0.1


@pytest.mark.parametrize(
    ("content", "unit", "said"),
    [
        (b"", "bytes", "is empty; there is nothing to learn from it"),
        (b"short", "bytes", "the text to train on has 4 bytes, but a window takes 11"),
        (b"caf\xe9 " * 100, "tokens", "is not in UTF-8 .* at byte 3.*; take --data.unit bytes"),
        (b"ab\0c" * 100, "tokens", "is binary: it holds zero bytes; take --data.unit bytes"),
    ],
)
def test_a_file_that_is_no_such_text_is_named(tmp_path, content, unit, said):
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        open_task(tiny(tmp_path / "run", data={"source": str(path), "unit": unit}))


def test_bytes_that_are_no_utf8_can_be_learned_from(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"caf\xe9\0" * 100)
    assert len(open_task(tiny(tmp_path / "run", data={"source": str(path)})).data.splits["train"]) == 16


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none does not exist; name a text file, or a folder"):
        read(DataConfig(source=str(tmp_path / "none")))
    with pytest.raises(UserError, match="holds no text to train on"):
        read(DataConfig(source=str(tmp_path)))


def test_a_window_is_a_stretch_of_the_text_and_what_follows_it():
    text = np.arange(1000)
    window = Windows(text, DATA, seed=0)[np.array([3, 3, 900])]
    assert window.tokens.shape == window.following.shape == (3, 2, 5)
    rows = window.tokens.reshape(3, 10)
    assert (rows == rows[:, :1] + np.arange(10)).all()
    assert (window.following == window.tokens + 1).all()
    assert (rows[0] == rows[1]).all()
    assert (rows[0] != rows[2]).any()
    begins = Windows(np.arange(13), DATA, seed=0)[np.arange(60)].tokens[:, 0, 0]
    assert set(begins.tolist()) == {0, 1, 2}  # all that fit


def test_windows_to_test_on_are_spread_and_do_not_overlap():
    begins = spread(np.arange(200), DATA).tokens[:, 0, 0]
    assert begins[0] == 0
    assert len(begins) == 6
    assert (np.diff(begins) >= size(DATA)).all()
    assert len(spread(np.arange(30), DATA).tokens) == 2


def test_a_setting_that_no_network_can_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match="features must be even, and heads divide them"):
        ModelConfig(features=6, heads=4)
    with pytest.raises(ValueError, match=r"dropout must be below 1"):
        ModelConfig(dropout=1.0)
    with pytest.raises(ValueError, match="length must be positive"):
        dataclasses.replace(DATA, length=0)
