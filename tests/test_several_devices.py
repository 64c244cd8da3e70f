import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deq_jax.evaluate import evaluate_run

ROOT = Path(__file__).parents[1]


def on(devices, module, *arguments):
    """What a program of the tests says on so many devices, made of the CPU."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.long
def test_every_public_function_works_within_shard_map():
    """Value and gradients are those of one device."""
    on(4, "tests.sharded")


@pytest.mark.long
def test_a_run_on_eight_devices_is_that_of_one(tmp_path):
    """To rounding, whatever a step does; and no device waits for another within a solve."""
    on(8, "tests.eight_devices", tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("devices", [1, 4])
def test_a_run_of_eight_devices_goes_on_with_fewer(tmp_path, devices):
    """Another number of devices is no other run."""
    own = "tests.one_of_several"
    on(8, own, tmp_path / "run", "--epochs", 6, "--max_steps", 6)
    assert "step 18" in on(devices, own, tmp_path / "run", "--epochs", 6)


@pytest.mark.long
def test_an_evaluation_on_eight_devices_is_that_of_one(finished_run):
    eight, one = json.loads(on(8, "deq_jax.evaluate", finished_run)), evaluate_run(finished_run)
    assert eight["class_accuracy"] == one["class_accuracy"]
    for name in ("count", "accuracy", "loss", "forward_iterations", "forward_residual", "converged"):
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-3, err_msg=name)


def test_a_batch_that_no_device_could_share_names_those_that_all_can(tmp_path):
    with pytest.raises(
        AssertionError, match=r"batch_size 8 does not fall evenly on 3 devices.\n *Take batch_size 6 or 9"
    ):
        on(3, "tests.one_of_several", tmp_path)
