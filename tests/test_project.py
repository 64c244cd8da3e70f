"""What the project says of itself, in several places, is the same everywhere; and what it publishes is sound."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import deq_jax

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]


def test_the_version_is_one():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == deq_jax.__version__ == citation["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version = {{{PROJECT['version']}}}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "CITATION.cff", "mkdocs.yml", "docs/index.md"])
def test_the_repository_is_one(name):
    found = re.findall(r"https://github\.com/deq[-_]jax/[\w-]+", (ROOT / name).read_text())
    assert found
    assert set(found) == {REPOSITORY}


def test_the_citation_is_whole():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license", "repository-code"} <= citation.keys()


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-lowest.txt"])
def test_every_pin_is_exact_and_names_no_address(name):
    lines = (ROOT / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    for pin in pins:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin)


def test_the_lowest_versions_are_those_that_are_named():
    """Of what the library and its tests import, each requirement's bound is the version that is tested."""
    lowest = dict(
        line.split("==") for line in (ROOT / "constraints-lowest.txt").read_text().splitlines() if "==" in line
    )
    extras = PROJECT["optional-dependencies"]
    named = [
        *PROJECT["dependencies"],
        *(line for extra in ("flax", "plots", "train", "krylov", "test") for line in extras[extra]),
    ]
    for requirement in named:
        if not requirement.startswith("deq_jax"):
            name, bound = requirement.split(">=")
            found = lowest[re.sub(r"[-_.]+", "-", name).lower()]
            assert (found + ".").startswith(bound + "."), requirement


def test_the_wheel_has_the_types_and_no_tests(tmp_path):
    for tool in ("build", "hatchling", "twine"):
        pytest.importorskip(tool)
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "deq_jax", source / "deq_jax", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", source]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "deq_jax/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"deq_jax", f"deq_jax-{PROJECT['version']}.dist-info"}
    check = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout


class Reporter:
    """Of one test that failed and of one whose fixture did."""

    def __init__(self):
        self.lines = []
        self.write_line = self.lines.append

    def getreports(self, outcome):
        return [SimpleNamespace(nodeid={"failed": "tests/test_a.py::test_b[x y]", "error": "tests/test_c.py"}[outcome])]


def test_what_fails_ends_with_the_command_that_repeats_it(request):
    conftest = request.config.pluginmanager.get_plugin(str(ROOT / "tests/conftest.py"))
    reporter = Reporter()
    list(conftest.pytest_terminal_summary(reporter))
    command = f"{sys.executable} -m pytest 'tests/test_a.py::test_b[x y]' tests/test_c.py"
    assert reporter.lines == [f"To repeat what failed: {command}"]
