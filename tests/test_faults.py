"""The short form of `make faults`: a few faults, injected into a real training, and the parts of the suite."""

import os
import random
import shutil
import sys

import pytest

from faults import power
from faults.episodes import episode
from faults.kinds import KINDS
from faults.runs import Process, command, environment, lines
from faults.settings import refused_commands, refused_configurations

SHORT = ("SIGKILL while saving", "newest seal, a bit flipped", "power lost", "all streams closed", "folder replaced")


def test_no_command_line_made_from_the_settings_ends_in_anything_but_a_refusal():
    tried, refused, wrong = refused_commands(random.Random(0), number=40)
    assert not wrong
    assert tried == 40
    assert refused > 20


def test_no_configuration_file_made_from_the_settings_ends_in_anything_but_a_refusal(tmp_path):
    tried, refused, wrong = refused_configurations(random.Random(0), tmp_path)
    assert not wrong
    assert tried > refused > 200


@pytest.mark.long
def test_a_training_survives_one_fault_after_another(tmp_path):
    env = environment(tmp_path / "programs")
    whole = Process(command(tmp_path / "whole"), env, tmp_path / "log")
    assert whole.wait() == 0, whole.said()
    kinds = [kind for name in SHORT for kind in KINDS if kind.name == name]
    suffered = episode(tmp_path / "episode", kinds, 0, env, lines(tmp_path / "whole"))
    assert len(suffered) == len(SHORT)
    assert [one for one in suffered if one.wrong] == []


def test_a_loss_of_power_leaves_what_was_synced(tmp_path):
    """Of a file that was written on, its content when it was synced; of one never synced, a name at most."""
    code = """
import os, sys
from pathlib import Path
run = Path(sys.argv[1]); run.mkdir()
def sync(path):
    descriptor = os.open(path, os.O_RDONLY); os.fsync(descriptor); os.close(descriptor)
(run / "synced").write_text("one"); sync(run / "synced")
(run / "unsynced").write_text("two")
sync(run)
(run / "synced").write_text("one and more")
(run / "unnamed").write_text("three"); sync(run / "unnamed")
"""
    script, shadow, run = tmp_path / "script.py", tmp_path / "shadow", tmp_path / "run"
    script.write_text(code)
    shadow.mkdir()
    process = Process(
        [sys.executable, power.__file__, str(shadow), str(script), str(run)], os.environ, tmp_path / "log"
    )
    assert process.wait() == 0, process.said()
    power.restored(run, shadow, tmp_path / "after")
    shutil.rmtree(run)
    assert {path.name: path.read_text() for path in (tmp_path / "after").iterdir()} == {"synced": "one", "unsynced": ""}
