"""The order of the house: imports run one way, and what trains any task knows none."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import jax.numpy as jnp
import jaxtyping
import pytest

from deq_jax.nn.layers.normalisation import group_norm

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "deq_jax").rglob("*.py"))
}
PROGRAMS = (
    "deq_jax.training",
    "deq_jax.tasks",
    "deq_jax.predict",
    "deq_jax.evaluate",
    "deq_jax.export",
    "deq_jax.generate",
)
ENGINE = [name for name in FILES if name.startswith("deq_jax.training")]


def imports(name):
    """The modules of the house that a module imports, wherever in it; a package's own is the import of its file."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & FILES.keys()) or {node.module}
    return found & FILES.keys() - {name}


def room(name):
    """The folder of the training program that a module is in, or the module itself where it is in none."""
    return ".".join(name.split(".")[:3])


def test_imports_form_no_circle():
    order = list(TopologicalSorter({name: imports(name) for name in FILES}).static_order())
    assert set(order) == FILES.keys()


def test_the_rooms_of_the_training_program_form_no_circle():
    graph = {}
    for name in ENGINE:
        graph.setdefault(room(name), set()).update({room(other) for other in imports(name)} - {room(name)})
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", ENGINE)
def test_a_run_knows_no_task(name):
    assert not [other for other in imports(name) if other.startswith(("deq_jax.tasks", "deq_jax.nn"))]
    words = re.findall(r"(?i)image|pixel|digits\b|cifar|cross-entropy", FILES[name].read_text(encoding="utf-8"))
    assert not words


def test_the_library_knows_nothing_of_training():
    for name in FILES:
        if not name.startswith(PROGRAMS):
            assert not [other for other in imports(name) if other.startswith(("deq_jax.training", "deq_jax.tasks"))]


def test_rooms_are_small_and_say_what_they_are_for():
    rooms = [path for path in (ROOT / "deq_jax").rglob("*/") if path.is_dir() and path.name != "__pycache__"]
    assert len(rooms) > 20
    for path in rooms:
        files = [file for file in path.glob("*.py") if file.name != "__init__.py"]
        assert len(files) <= 11
        assert ast.get_docstring(ast.parse((path / "__init__.py").read_text(encoding="utf-8")))
        assert max((len(file.read_text(encoding="utf-8").splitlines()) for file in files), default=0) <= 250


def test_annotations_are_checked_while_tests_run():
    with pytest.raises(jaxtyping.TypeCheckError):
        group_norm("no array", jnp.ones(2), jnp.zeros(2), num_groups=1, epsilon=1e-5)
