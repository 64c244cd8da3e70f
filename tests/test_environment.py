import json
import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from deq_jax.tasks.images.data import Examples
from deq_jax.training.disk import environment
from deq_jax.training.disk.folder import require_same_data
from deq_jax.training.task import Data


def test_it_says_what_ran_on_what():
    description = environment.describe()
    assert description["command"] == sys.argv
    assert description["packages"]["jax"] == jax.__version__
    assert len(description["devices"]) == jax.device_count()
    assert json.loads(json.dumps(description)) == description


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux tells which cores a process may use")
def test_the_cores_are_those_that_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert environment.describe()["cpu_count"] == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert environment.describe()["cpu_count"] == len(allowed)


def test_the_commit_is_named_where_there_is_a_checkout():
    git = environment.describe()["git"]
    if not (Path(__file__).parents[1] / ".git").exists():
        assert git is None
    else:
        assert git is None or (len(git["commit"]) == 40 and isinstance(git["dirty"], bool))


def test_the_first_start_stays_and_later_ones_are_added(tmp_path):
    path = tmp_path / "environment.json"
    for start in range(3):
        environment.write(path, {"started": start}, is_anew=start == 0)
    assert json.loads(path.read_text()) == {"started": 0, "resumed": [{"started": 1}, {"started": 2}]}
    environment.write(path, {"started": 3}, is_anew=True)
    assert json.loads(path.read_text()) == {"started": 3, "resumed": []}


def test_a_damaged_file_is_replaced(tmp_path):
    path = tmp_path / "environment.json"
    path.write_text('{"started": ')
    environment.write(path, {"started": 1}, is_anew=False)
    assert json.loads(path.read_text()) == {"started": 1, "resumed": []}


@pytest.mark.long
def test_what_a_model_was_made_for_is_described(finished_run):
    images = Data({"train": Examples(np.zeros((3, 8, 8, 1), np.uint8), np.zeros(3, np.int32))}, classes=("cat", "dog"))
    expected = {"sample": {"images": [8, 8, 1], "labels": []}, "classes": ["cat", "dog"]}
    assert environment.describe_samples(images) == expected
    assert environment.describe_samples(Data({"train": (np.zeros((3, 2)), np.zeros(3))})) == {
        "sample": {"0": [2], "1": []}
    }
    known = environment.latest(finished_run)
    assert known["steps"] == 7
    assert known["sample"] == expected["sample"]
    assert known["classes"] == [str(k) for k in range(10)]


def test_what_a_resumption_says_goes_before_the_start(tmp_path):
    environment.write(tmp_path / "environment.json", {"steps": 4, "parameters": 1}, is_anew=True)
    environment.write(tmp_path / "environment.json", {"steps": 7}, is_anew=False)
    known = environment.latest(tmp_path)
    assert (known["steps"], known["parameters"]) == (7, 1)
    (tmp_path / "environment.json").write_text("[")
    assert environment.latest(tmp_path) == {}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        '{"resumed": 3, "data": 5}',
        '{"data": {"training_samples": "many"}, "resumed": [1, null, {"data": []}]}',
        '{"sample": {"images": ["x"]}, "classes": 5, "steps": "x", "cpu_count": "x", "packages": 1, "resumed": {}}',
    ],
)
def test_whatever_the_file_holds_nothing_of_it_that_is_wrong_is_used(tmp_path, content):
    (tmp_path / "environment.json").write_text(content)
    data = {"training_samples": 3, "test_samples": 1, "encoding": None, "digest": "0"}
    require_same_data(tmp_path, data, "samples", "Give the data")
    known = environment.latest(tmp_path)
    assert not known.keys() & {"sample", "classes", "steps", "cpu_count", "packages"}
    assert environment.changes_since(known) == {}
    environment.write(tmp_path / "environment.json", {"data": data}, is_anew=False)
    assert environment.latest(tmp_path)["data"] == data


def test_what_the_last_bit_of_a_result_depends_on_is_compared():
    known = environment.describe()
    assert environment.changes_since(known) == {}
    assert environment.changes_since(known | {"cpu_count": 999})["cores"][0] == 999
