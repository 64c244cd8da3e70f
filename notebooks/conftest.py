import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    """They train."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    """They compute as well as check: their kernels get code that is fast, as a reader's do."""
    flags = os.environ.pop("XLA_FLAGS")
    try:
        return (yield)
    finally:
        os.environ["XLA_FLAGS"] = flags
