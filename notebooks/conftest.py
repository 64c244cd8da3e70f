import os

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    """They compute as well as check: their kernels get code that is fast, as a reader's do."""
    flags = os.environ.pop("XLA_FLAGS")
    try:
        return (yield)
    finally:
        os.environ["XLA_FLAGS"] = flags
