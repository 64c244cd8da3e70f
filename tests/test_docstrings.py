"""The examples in docstrings run, and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import deq_jax

MODULES = [deq_jax.__name__, *(module.name for module in pkgutil.walk_packages(deq_jax.__path__, "deq_jax."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    if name in ("deq_jax.predict", "deq_jax.evaluate", "deq_jax.export"):
        pytest.skip("a program: importing it runs nothing, but it has no examples")
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = [test.name for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) >= 8
