"""What a fresh clone relies on before anything of the package can run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def make(folder, *arguments):
    # A make that runs this test hands its own flags down, and they would win.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def clone(tmp_path):
    """The files of the set-up, without the virtual environment."""
    if shutil.which("make", path="/usr/bin:/bin") is None:
        pytest.skip("there is no make here")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def interpreter(folder, body):
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("target", ["train", "test"])
def test_an_interpreter_that_is_too_old_is_said_in_one_line(clone, target):
    # Runs the Makefile's own question under this Python, made to say that it is 3.11.
    old = interpreter(clone, f'exec {sys.executable} -c "import sys; sys.version_info = (3, 11, 7); $2"')
    ended = make(clone, target, f"PYTHON={old}")
    assert ended.returncode != 0
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert "needs Python 3.12 or newer" in ended.stderr
    assert "is 3.11" in ended.stderr
    assert not (clone / ".venv").exists()


def test_an_interpreter_that_is_not_there_is_said_in_one_line(clone):
    ended = make(clone, "test", "PYTHON=/nowhere/python")
    assert ended.returncode != 0
    assert ended.stderr.splitlines()[1:] == []
    assert "/nowhere/python is not there" in ended.stderr


def test_an_install_that_fails_leaves_no_stamp_and_starts_afresh(clone):
    """The interpreter answers the version, then makes a virtual environment whose pip fails."""
    log = clone / "log"
    fails = (
        f'case "$1" in -c) exec {sys.executable} "$@";; '
        f'*) echo "$*" >> {log}; mkdir -p .venv/bin; printf "#!/bin/sh\\nexit 1\\n" > .venv/bin/python; '
        "chmod +x .venv/bin/python;; esac"
    )
    for _ in range(2):
        assert make(clone, "setup", f"PYTHON={interpreter(clone, fails)}").returncode != 0
        assert not (clone / ".venv" / ".installed").exists()
    assert log.read_text().splitlines() == ["-m venv --clear .venv"] * 2


def test_a_finished_set_up_is_not_repeated(clone):
    (clone / ".venv").mkdir()
    (clone / ".venv" / ".installed").touch()
    ended = make(clone, "setup", "PYTHON=/nowhere/python")
    assert ended.returncode == 0
    assert "Nothing to be done" in ended.stdout


def test_importing_the_package_imports_nothing_of_flax_or_of_training():
    code = "import sys, deq_jax; print({'flax', 'optax', 'orbax', 'tyro', 'sklearn', 'matplotlib'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "set()"
