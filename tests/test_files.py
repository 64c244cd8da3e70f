import errno

import pytest

from deq_jax.training.disk.files import set_aside, write_atomically, writing_to
from deq_jax.training.errors import UserError


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    for text in ("one", "other"):
        write_atomically(tmp_path / "file", text)
        assert (tmp_path / "file").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_replaced_stays_and_nothing_else_is_left(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_how_to_go_on(tmp_path, number):
    with pytest.raises(UserError, match="Free space; started again, it goes on"), writing_to(tmp_path):
        raise OSError(number, "full")


def test_any_other_refusal_names_the_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot write to .*: No way: x/y\.$"), writing_to(tmp_path):
        raise OSError(errno.EPERM, "No way", "x/y")


def test_what_is_set_aside_takes_the_first_free_name(tmp_path):
    for k in range(3):
        (tmp_path / "file").write_text(str(k))
        assert set_aside(tmp_path / "file", "old-{}") == tmp_path / f"old-{k}"
    assert [(tmp_path / f"old-{k}").read_text() for k in range(3)] == ["0", "1", "2"]
