import contextlib
import json
import resource
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from deq_jax.training.disk import checkpoints
from deq_jax.training.disk.checkpoints import seal
from deq_jax.training.disk.lock import held
from deq_jax.training.errors import UserError
from deq_jax.training.steps.step import TrainState, create_state


class Layer(nnx.Module):
    def __init__(self, width, rngs):
        self.linear = nnx.Linear(width, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)


def state_at(step, width=40):
    """Something of everything that a state holds, different at every step."""
    state = create_state(Layer(width, nnx.Rngs(step)), optax.adam(optax.cosine_decay_schedule(1e-3, 10)))
    return state._replace(step=jnp.asarray(step, jnp.int32))


def save(run, *steps):
    with checkpoints.opened(run) as writer:
        for step in steps:
            writer.save(state_at(step), seconds=10.0 * step)


def assert_restored(restored, step):
    expected = state_at(step)
    assert isinstance(restored.state, TrainState)
    assert jax.tree.structure(restored.state) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, restored.state, expected)
    assert restored.seconds == 10.0 * step


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(folder):
    file = largest_file(folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(folder):
    """Orbax itself restores this without a word."""
    file = largest_file(folder)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def remove_a_file(folder):
    largest_file(folder).unlink()


def leave_unfinished(folder):
    """As if the run had been killed between the checkpoint and its seal."""
    (folder / "seal.json").unlink()


def damage_the_seal(folder):
    (folder / "seal.json").write_text("{")


def flip_a_bit_of_the_seals_form(folder):
    """It once was taken for the seal of another model, which ended the run."""
    file = folder / "seal.json"
    file.write_text(file.read_text().replace("float32[40]", "float32[41]", 1))


DAMAGES = [truncate, flip_a_bit, remove_a_file, damage_the_seal, flip_a_bit_of_the_seals_form]


def test_a_state_comes_back_bit_for_bit(tmp_path):
    save(tmp_path, 3)
    assert_restored(checkpoints.restore(tmp_path, like=state_at(0)), 3)


def test_a_run_without_checkpoints_has_none_to_restore(tmp_path):
    assert checkpoints.restore(tmp_path, like=state_at(0)) is None


def test_the_last_three_are_kept(tmp_path):
    save(tmp_path, 1, 2, 3, 9, 10)
    assert sorted(int(folder.name) for folder in (tmp_path / "checkpoints").iterdir()) == [3, 9, 10]
    assert_restored(checkpoints.restore(tmp_path, like=state_at(0)), 10)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_latest_one_is_passed_over_with_a_warning(tmp_path, damage, capfd):
    save(tmp_path, 1, 2)
    damage(tmp_path / "checkpoints" / "2")
    assert_restored(checkpoints.restore(tmp_path, like=state_at(0)), 1)
    # One line: the libraries below must not add their own tracebacks.
    assert capfd.readouterr().err.splitlines() == [
        f"warning: {tmp_path / 'checkpoints' / '2'} is damaged; continuing from step 1."
    ]


def test_one_without_a_seal_is_called_unfinished(tmp_path, capfd):
    save(tmp_path, 1, 2)
    leave_unfinished(tmp_path / "checkpoints" / "2")
    assert_restored(checkpoints.restore(tmp_path, like=state_at(0)), 1)
    assert "2 is unfinished; continuing from step 1" in capfd.readouterr().err


def test_no_flipped_bit_of_a_seal_is_believed(tmp_path):
    save(tmp_path, 1)
    folder = checkpoints.folder_of(tmp_path, 1)
    sound, content = seal.read(folder), (folder / "seal.json").read_bytes()
    for place in range(0, 8 * len(content), 7):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        (folder / "seal.json").write_bytes(flipped)
        assert seal.read(folder) in (None, sound)


def test_a_seal_of_an_older_version_which_has_no_digest_of_its_own_is_read(tmp_path):
    save(tmp_path, 1)
    file = tmp_path / "checkpoints" / "1" / "seal.json"
    content = json.loads(file.read_text())
    del content["seal"]
    file.write_text(json.dumps(content))
    assert_restored(checkpoints.restore(tmp_path, like=state_at(0)), 1)


def test_a_checkpoint_appears_with_its_seal(tmp_path, monkeypatch):
    """A run killed in the midst of a save leaves nothing under a checkpoint's name, nor does a reader see any."""
    seen = []

    def look(folder, *arguments):
        seen.append(checkpoints.steps_of(tmp_path))
        seal.seal(folder, *arguments)

    monkeypatch.setattr("deq_jax.training.disk.checkpoints.saving.seal", look)
    save(tmp_path, 1, 2)
    assert seen == [[], [1]]


def test_a_save_under_way_is_waited_for_even_where_the_folder_is_lost(tmp_path, monkeypatch):
    """Or the interpreter would shut down beneath it, which Python reports with a traceback."""
    run, begun, ended = tmp_path / "run", threading.Event(), threading.Event()

    def slowly(folder, *arguments):
        begun.set()
        time.sleep(0.3)
        seal.seal(folder, *arguments)
        ended.set()

    monkeypatch.setattr("deq_jax.training.disk.checkpoints.saving.seal", slowly)
    with held(run), contextlib.ExitStack() as stack:
        stack.enter_context(checkpoints.opened(run)).save(state_at(1), seconds=1.0)
        assert begun.wait(20)
        (run / ".lock").unlink()
        with pytest.raises(UserError, match="no longer the folder"):
            stack.close()
    assert ended.is_set()


@pytest.mark.parametrize("error", [ValueError("no such directory.\nMore"), RuntimeError("can't start new thread")])
def test_what_orbax_says_without_a_number_is_passed_on_unless_the_folder_is_lost(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    run = tmp_path / "run"
    with held(run), checkpoints.opened(run) as writer:
        monkeypatch.setattr(writer._manager, "save", fail)
        with pytest.raises(UserError, match=rf"cannot write to .*/run: {str(error).splitlines()[0].rstrip('.')}\.$"):
            writer.save(state_at(1), seconds=1.0)


def test_one_that_a_living_run_removes_beside_its_reader_is_no_damage(tmp_path, monkeypatch, capfd):
    save(tmp_path, 1, 2)
    truncate(tmp_path / "checkpoints" / "2")  # half removed
    monkeypatch.setattr("time.sleep", lambda seconds: shutil.rmtree(tmp_path / "checkpoints" / "2"))
    assert_restored(checkpoints.restore(tmp_path, like=state_at(0)), 1)
    assert capfd.readouterr().err == ""


def test_only_the_last_few_that_were_set_aside_are_kept(tmp_path):
    for _ in range(5):
        save(tmp_path, 1)
        checkpoints.set_aside_after(tmp_path, 0)
    names = sorted(entry.name for entry in (tmp_path / "checkpoints").iterdir())
    assert len(names) == 3
    assert all(name.startswith("damaged-1-") for name in names)


@pytest.mark.parametrize("name", [".DS_Store", "default/.nfs0001", "notes.txt"])
def test_a_file_that_others_have_left_in_one_does_not_matter(tmp_path, name):
    save(tmp_path, 1, 2)
    (tmp_path / "checkpoints" / "2" / name).write_text("")
    assert_restored(checkpoints.restore(tmp_path, like=state_at(0)), 2)


def test_what_was_set_aside_leaves_its_step_free(tmp_path):
    save(tmp_path, 1, 2)
    truncate(tmp_path / "checkpoints" / "2")
    checkpoints.set_aside_after(tmp_path, 1)
    save(tmp_path, 2)
    assert_restored(checkpoints.restore(tmp_path, like=state_at(0)), 2)
    assert (tmp_path / "checkpoints" / "damaged-2-0").is_dir()


def test_a_reader_changes_nothing(tmp_path):
    save(tmp_path, 1, 2)
    truncate(tmp_path / "checkpoints" / "2")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    checkpoints.restore(tmp_path, like=state_at(0))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_run_whose_every_checkpoint_is_damaged_is_not_trained_anew_in_silence(tmp_path):
    save(tmp_path, 1, 2)
    for step in ("1", "2"):
        truncate(tmp_path / "checkpoints" / step)
    with pytest.raises(UserError, match=r"no checkpoint in .* is readable: 2, 1") as error:
        checkpoints.restore(tmp_path, like=state_at(0))
    assert str(error.value).count("\n") <= 1


def test_a_run_killed_at_its_first_checkpoint_has_not_begun(tmp_path):
    save(tmp_path, 1)
    leave_unfinished(tmp_path / "checkpoints" / "1")
    assert checkpoints.restore(tmp_path, like=state_at(0)) is None
    checkpoints.set_aside_after(tmp_path, 0)
    save(tmp_path, 1)
    assert_restored(checkpoints.restore(tmp_path, like=state_at(0)), 1)


def test_a_checkpoint_of_another_model_is_a_user_error(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(UserError, match="of another model") as error:
        checkpoints.restore(tmp_path, like=state_at(0, width=8))
    assert str(error.value).count("\n") <= 1


@contextlib.contextmanager
def files_of_at_most(size):
    """What a full disk does, without one: writing beyond `size` bytes fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# 0 stops Orbax's own files, 1,500 TensorStore's arrays, which raises something else.
@pytest.mark.parametrize("size", [0, 1500])
def test_what_cannot_be_written_is_a_user_error_and_costs_no_earlier_checkpoint(tmp_path, size, capfd):
    save(tmp_path, 1)
    with pytest.raises(UserError) as error, files_of_at_most(size):
        save(tmp_path, 2)
    assert str(error.value) == f"cannot write to {tmp_path}: File too large."
    assert capfd.readouterr().err == ""
    checkpoints.set_aside_after(tmp_path, 1)
    save(tmp_path, 3)
    assert_restored(checkpoints.restore(tmp_path, like=state_at(0)), 3)


def test_a_file_where_checkpoints_should_be_is_a_user_error(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match="is a file, not a folder of checkpoints; move it away"):
        checkpoints.restore(tmp_path, like=state_at(0))
