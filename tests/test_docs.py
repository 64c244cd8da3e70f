"""The documentation keeps its word: every block of Python runs, and says what is so."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from deq_jax.tasks.images.presets import digits
from deq_jax.tasks.presets import PRESETS
from deq_jax.training.devices.places import place_of, without_flags
from deq_jax.training.disk import metrics
from deq_jax.training.process import cli
from deq_jax.training.settings.record import flatten, to_dict

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python(?: [^\n]*)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ (?:\.venv/bin/)?python train\.py (.*)$", re.MULTILINE)
TORCH = ROOT / ".bench/torch/bin/python"


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(page):
    return BLOCK.findall(text_of(page))


def is_pytorch(block):
    return "import torch" in block


def run(page):
    """The names that a page's blocks leave behind, those in PyTorch left out."""
    names: dict = {}
    for block in blocks(page):
        if not is_pytorch(block):
            exec(compile(block, page.name, "exec"), names)
    return names


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_every_block_runs(page, tmp_path, monkeypatch):
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    assert run(page)


@pytest.mark.parametrize("page", [page for page in PAGES if COMMAND.search(text_of(page))], ids=lambda page: page.stem)
def test_every_training_that_is_shown_can_be_started(page):
    for command in COMMAND.findall(text_of(page).replace(" \\\n", " ")):
        arguments = shlex.split(command, comments=True)
        arguments, flags = without_flags(arguments)
        place_of(flags, {})
        if arguments[-1] != "--help":
            cli.parse(arguments, PRESETS)


def test_options_and_keys_that_the_page_on_training_names_exist():
    page = text_of(ROOT / "docs/how-to/train.md")
    known = {name.replace("_", "-") for name in flatten(to_dict(digits()))}
    options = set(re.findall(r"--([a-z]+\.[a-z-]+)", page))
    assert len(options) > 10
    assert options <= known
    table = page[page.index("| key |") :].split("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(
        [*metrics.KEYS, "accuracy", *metrics.SHARES, *metrics.STABILITY, "skipped", "step_seconds", metrics.CHECKSUM]
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_block_is_wider_than_the_site_s_column(page):
    """docs/theme/extra.css makes room for 120 characters."""
    for block in re.findall(r"^```.*?^```", text_of(page), re.DOTALL | re.MULTILINE):
        assert max(map(len, block.splitlines())) <= 120


def test_there_are_blocks():
    assert sum(len(blocks(page)) for page in PAGES) >= 15


@pytest.mark.long
def test_the_page_on_devices_runs_on_four():
    code = "\n".join(blocks(ROOT / "docs/how-to/several-devices.md")) + "\nassert len(jax.devices()) == 4"
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_pytorch_and_jax_find_the_same_equilibrium_and_gradient():
    """The chapter's code, torchdeq and deq_jax on one problem, each as the page has it."""
    if not TORCH.exists():
        pytest.skip("PyTorch is not set up; make bench does")
    page = ROOT / "docs/how-to/from-pytorch.md"
    problem, *rest = blocks(page)
    ours = run(page)
    show = "import json; print(json.dumps([z_star.tolist(), gradient.tolist()]))"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks/training/contestants")])
    theirs = [block for block in rest if is_pytorch(block)]
    assert len(theirs) == 2
    for block in theirs:
        code = "\n".join([problem, block, show])
        ended = subprocess.run(
            [TORCH, "-c", code], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        z_star, gradient = json.loads(ended.stdout.splitlines()[-1])
        # The solvers stop at relative residuals of 1e-5, torchdeq's and the chapter's over the batch.
        np.testing.assert_allclose(ours["z_star"], z_star, atol=1e-3)
        np.testing.assert_allclose(ours["gradient"], gradient, rtol=1e-2, atol=1e-2)


def test_the_readme_s_pictures_and_files_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text_of(ROOT / "README.md"))
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_scripts_for_a_cluster_parse_and_start_what_there_is():
    text = text_of(ROOT / "docs/how-to/several-devices.md")
    (script,) = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script, re.MULTILINE))
    (command,) = re.findall(r"^srun .*train\.py (.*)$", script, re.MULTILINE)
    config = cli.parse(shlex.split(command), PRESETS)
    assert config.batch_size % (int(options["nodes"]) * int(options["ntasks-per-node"])) == 0
