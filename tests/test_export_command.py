"""``python -m deq_jax.export``: one file that runs without this library."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export

from deq_jax import training
from deq_jax.export import main
from deq_jax.tasks.images.data import load
from deq_jax.tasks.images.task import scaled

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("run")

# What the page shows, around it what a test needs.
PAGE = re.search(
    r"```py title=\"use\.py\"\n(.*?)```",
    (ROOT / "docs/how-to/use-a-model.md").read_text(encoding="utf-8"),
    re.DOTALL,
)[1]
CODE = f"""
import sys
import numpy as np
images = np.load("images.npy")
{PAGE}
assert "deq_jax" not in sys.modules and "flax" not in sys.modules
assert list(exported.platforms) == ["cpu", "cuda", "tpu"]
for n in (2, 5):
    np.savez(f"{{n}}.npz", **call(images[:n]))
"""


@pytest.fixture(scope="module")
def file(finished_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "digits.jax"
    command = [sys.executable, "-m", "deq_jax.export", str(finished_run), str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "images uint8 [batch, 8, 8, 1] on cpu, cuda, tpu" in done.stdout
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in done.stdout
    assert done.stderr == ""
    return path


def test_the_file_runs_in_a_process_without_this_library_for_batches_of_any_size(finished_run, file, tmp_path):
    images = load("digits", "test").images[:5]
    np.save(tmp_path / "images.npy", images)
    shutil.copy(file, tmp_path / "digits.jax")
    elsewhere = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, env=elsewhere, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    logits, solution = training.load(finished_run).model(scaled(images))
    for n in (2, 5):
        said = np.load(tmp_path / f"{n}.npz")
        assert sorted(said) == ["evaluations", "probabilities", "residual"]
        # Another program of the same arithmetic: sums may be taken in another order.
        np.testing.assert_allclose(said["probabilities"], jax.nn.softmax(logits)[:n], rtol=1e-4)
        np.testing.assert_allclose(said["residual"], solution.residual[:n], rtol=1e-3)
        np.testing.assert_array_equal(said["evaluations"], solution.iterations[:n])


def test_the_page_takes_five_lines():
    assert sum(bool(line) for line in PAGE.splitlines()) <= 5


def refused(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) <= 2
    return printed.err


def test_an_existing_file_is_replaced_only_by_force(finished_run, tmp_path, capsys):
    path = tmp_path / "model.jax"
    path.write_text("precious")
    assert f"{path} exists already; give --force to replace it" in refused(capsys, finished_run, path)
    assert path.read_text() == "precious"
    main([str(finished_run), str(path), "--force", "--checkpoint", "best"])
    assert export.deserialize(bytearray(path.read_bytes())).in_avals[0].shape[1:] == (8, 8, 1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.jax"]


def test_what_cannot_be_exported_leaves_no_file(finished_run, tmp_path, capsys, monkeypatch):
    path = tmp_path / "model.jax"
    assert "there is no folder" in refused(capsys, finished_run, tmp_path / "missing" / "model.jax")
    assert "is a folder; name a file in it" in refused(capsys, finished_run, tmp_path)
    assert "There are: 7." in refused(capsys, finished_run, path, "--checkpoint", "5")
    assert "does not exist" in refused(capsys, tmp_path / "nowhere", path)
    assert "FILE" in refused(capsys, finished_run)

    def full(self, content):
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert "No space left on device" in refused(capsys, finished_run, path)
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_is_exported_with_a_note(finished_run, tmp_path, capsys):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    known = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(known | {"steps": 264}))
    main([str(run), str(tmp_path / "model.jax")])
    assert "is unfinished: it has come to step 7 of 264" in capsys.readouterr().err
