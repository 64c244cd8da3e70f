import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deq_jax.training.disk import metrics
from deq_jax.training.disk.lock import held
from deq_jax.training.errors import UserError

ROOT = Path(__file__).parents[1]
HOLD = """
import pathlib, sys, time
from deq_jax.training.disk.lock import held
with held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_is_one_processs_until_that_is_killed(tmp_path):
    run = tmp_path / "new" / "run"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is training in") as error, held(run):
            pass
        assert str(error.value).count("\n") <= 1
        process.kill()
    with held(run):
        pass


def test_it_is_let_go_at_the_end_however_that_comes(tmp_path):
    with pytest.raises(ZeroDivisionError), held(tmp_path):
        raise ZeroDivisionError
    with held(tmp_path):
        pass


def test_runs_in_other_folders_do_not_mind(tmp_path):
    with held(tmp_path / "one"), held(tmp_path / "other"):
        pass


def test_a_folder_that_cannot_be_written_to_needs_no_lock(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with held(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*: Not a directory"), held(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize("what", ["lock", "folder", "folder anew"])
def test_nothing_is_written_once_the_folder_is_no_longer_the_runs_own(tmp_path, what):
    run = tmp_path / "run"
    with held(run):
        metrics.append(run / "metrics.jsonl", {})
        shutil.rmtree(run) if what != "lock" else (run / ".lock").unlink()
        if what == "folder anew":
            run.mkdir()
            (run / ".lock").touch()
        before = [path.name for path in run.iterdir()] if run.exists() else []
        with pytest.raises(UserError, match="no longer the folder of this run") as error:
            metrics.append(run / "metrics.jsonl", {})
    assert str(error.value).count("\n") <= 1
    assert ([path.name for path in run.iterdir()] if run.exists() else []) == before
