"""Every public name says what it takes and gives, what it raises, and where it comes from."""

import ast
import dataclasses
import inspect
import re
import textwrap
from pathlib import Path

import pytest
from flax import nnx

import deq_jax
from deq_jax import nn, plots, training

REFERENCE = Path(__file__).parents[1] / "docs/reference"
PUBLIC = {
    **{f"deq_jax.{name}": getattr(deq_jax, name) for name in deq_jax.__all__},
    **{f"deq_jax.nn.{name}": getattr(nn, name) for name in nn.__all__ if name != "linen"},
    "deq_jax.nn.linen.DEQ": nn.linen.DEQ,
    **{f"deq_jax.plots.{name}": getattr(plots, name) for name in plots.__all__ if name.islower()},
    **{f"deq_jax.training.{name}": getattr(training, name) for name in training.__all__},
}
SHAPE = re.compile(r"\[(batch|max_iter|n)\b")
# What a name has no need to say, and why.
NO_SHAPES = {
    "deq_jax.Status": "an enumeration",
    "deq_jax.implicit": "takes a function and gives one",
    "deq_jax.krylov": "takes numbers and gives a function",
    "deq_jax.direct": "takes nothing and gives a function",
    "deq_jax.jacobian_free": "takes nothing and gives a function",
    "deq_jax.phantom": "takes numbers and gives a function",
    "deq_jax.or_nan": "takes a function and gives one",
    "deq_jax.recomputed": "takes a function and gives one",
    "deq_jax.AdjointReport": "its fields' types say so",
    "deq_jax.plots.residuals": "takes a Solution, which says its own",
    "deq_jax.plots.iterations": "takes a Solution, which says its own",
    "deq_jax.plots.curves": "takes dictionaries of numbers",
    "deq_jax.training.NonFiniteLossError": "an exception",
    "deq_jax.training.Run": "has no arrays of its own",
    "deq_jax.training.Settings": "has no arrays",
    "deq_jax.training.Task": "Data and Outcome say theirs",
    "deq_jax.training.UserError": "an exception",
    "deq_jax.training.fit": "takes a Task, which says its own",
    "deq_jax.training.load": "takes a Task, which says its own",
}
RAISES_NOTHING = {
    "deq_jax.Status": "an enumeration",
    "deq_jax.Solution": "a tuple",
    "deq_jax.AdjointReport": "a tuple",
    "deq_jax.Rule": "a tuple",
    "deq_jax.jacobian_free": "takes nothing",
    "deq_jax.adjoint_report": "any number of samples has its zeros",
    "deq_jax.nn.ImageClassifier": "its parts raise",
    "deq_jax.nn.Layers": "its cells raise",
    "deq_jax.nn.Memory": "a tuple",
    "deq_jax.nn.Stage": "a tuple",
    "deq_jax.plots.iterations": "any solution can be drawn",
    "deq_jax.plots.curves": "any run can be drawn",
    "deq_jax.plots.smoothed": "any values have a mean",
    "deq_jax.training.Data": "a tuple; fit raises",
    "deq_jax.training.NonFiniteLossError": "is raised",
    "deq_jax.training.Outcome": "a tuple; fit raises",
    "deq_jax.training.Run": "a tuple",
    "deq_jax.training.Settings": "fit raises, in the same words",
    "deq_jax.training.UserError": "is raised",
}
OURS = {
    "deq_jax.Status": "how this library's loop ends",
    "deq_jax.Solution": "what this library's solvers return",
    "deq_jax.AdjointReport": "what this library's backward solve tells",
    "deq_jax.adjoint_report": "how it tells it",
    "deq_jax.Rule": "this library's solvers",
    "deq_jax.solve": "this library's loop",
    "deq_jax.nn.Stage": "how this library's stem is described",
    **{f"deq_jax.plots.{name}": "a picture" for name in plots.__all__ if name.islower()},
    **{f"deq_jax.training.{name}": "this library's training" for name in training.__all__},
}


def documentation(name):
    """The docstrings of a name, of its public methods, and of its fields."""
    thing = PUBLIC[name]
    if not inspect.isclass(thing):
        return inspect.getdoc(thing)
    lines = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(thing))))
    texts = [line.value.value for line in lines if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)]
    return "\n".join(map(str, texts))


def parameters(thing):
    """What a caller may pass; Linen adds two of its own, and a tuple's fields are explained one by one."""
    if (
        hasattr(thing, "_fields")
        or dataclasses.is_dataclass(thing)
        or (inspect.isclass(thing) and issubclass(thing, Exception))
    ):
        return []
    called = thing.__init__ if inspect.isclass(thing) and issubclass(thing, nnx.Module) else thing
    return [name for name in inspect.signature(called).parameters if name not in {"self", "parent", "name"}]


@pytest.mark.parametrize("name", PUBLIC)
def test_it_is_described(name):
    doc = inspect.getdoc(PUBLIC[name])
    assert doc
    assert doc.splitlines()[0].endswith((".", "``.", ":")), "the first line is a sentence"


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "deq_jax.Status"])
def test_every_parameter_is_explained(name):
    doc = inspect.getdoc(PUBLIC[name])
    for parameter in parameters(PUBLIC[name]):
        assert re.search(rf"^ +\*{{0,2}}{parameter}: ", doc, re.MULTILINE), parameter


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in NO_SHAPES])
def test_shapes_are_stated(name):
    assert SHAPE.search(documentation(name))


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in RAISES_NOTHING])
def test_errors_are_stated(name):
    assert "Raises:" in documentation(name)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in OURS])
def test_the_source_is_stated(name):
    assert "Source:" in documentation(name)


def test_the_lists_of_exceptions_are_up_to_date():
    for names in (NO_SHAPES, RAISES_NOTHING, OURS):
        assert names.keys() <= PUBLIC.keys()
    assert not [name for name in RAISES_NOTHING if "Raises:" in documentation(name)]
    assert not [name for name in OURS if "Source:" in documentation(name)]


def test_every_public_name_is_in_the_reference():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
    for name in PUBLIC:
        assert re.search(rf"^::: {re.escape(name)}$|^\[\]\(\){{#{re.escape(name)}}}$", pages, re.MULTILINE), name
