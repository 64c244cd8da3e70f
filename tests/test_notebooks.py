"""What is stored in the notebooks; that they run is checked by running them, beside these tests."""

import base64
import re
import tomllib
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from notebooks import stamp

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_there_is_one_a_section():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{k}_" for k in range(1, 10)]


def test_it_opens_with_what_it_shows_and_a_badge_of_its_own(path, notebook):
    first = notebook.cells[0].source
    assert first.startswith(f"# {path.stem[0]}. ")
    slug = REPOSITORY.removeprefix("https://github.com/")
    assert f"https://colab.research.google.com/github/{slug}/blob/main/notebooks/{path.name}" in first


def test_it_installs_the_library_where_it_is_missing(notebook):
    cell = notebook.cells[1].source
    assert 'find_spec("deq_jax") is None' in cell
    assert f'%pip install --quiet "deq_jax[notebooks] @ git+{REPOSITORY}"' in cell


def test_it_was_run_from_top_to_bottom(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for output in outputs(notebook) if output.output_type == "error"]


def test_its_outputs_are_those_of_its_cells(notebook):
    assert notebook.metadata.get(stamp.KEY) == stamp.digest(notebook), "make notebooks runs it, and stores the outputs"


def test_its_links_to_files_lead_somewhere(path, notebook):
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    for link in re.findall(r"\]\(([^)#\s]+)", "\n".join(texts)):
        if link.startswith(f"{REPOSITORY}/blob/main/"):
            assert (ROOT / link.removeprefix(f"{REPOSITORY}/blob/main/")).is_file(), link
        elif not link.startswith("https:"):
            assert (path.parent / link).is_file(), link


def test_its_pictures_are_there_and_small(path, notebook):
    pictures = [output.data["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert len(pictures) >= 2
    assert path.stat().st_size < 400_000
    for picture in pictures:
        assert Image.open(BytesIO(base64.b64decode(picture))).width <= 700


def test_it_tells_nothing_of_the_machine_it_ran_on(path):
    folders = "|".join(f"/{name}/" for name in ("tmp", "home", "root", "Users"))
    assert not re.search(rf"{folders}|file://|site-packages", path.read_text(encoding="utf-8"))
