import os
import shlex
import shutil
import sys
import tempfile

import jax
import jaxtyping
import pytest


def check_only_what_modules_and_classes_hold():
    """A function within another would be given its checks anew whenever the other is called: a fifth of the time."""
    checked = jaxtyping.jaxtyped

    def outermost(*, typechecker):
        check = checked(typechecker=typechecker)
        return lambda thing: thing if "<locals>" in thing.__qualname__ else check(thing)

    jaxtyping.jaxtyped = outermost


check_only_what_modules_and_classes_hold()


def pytest_configure(config):
    """Most of the tests' time is compilation: code is made quickly rather than made quick, and once in all modules.

    That goes for the programs that a test starts, too. Workers do not share what they keep: one would read what another
    has half written.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_optimization_level" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0".strip()
    config.programs = tempfile.mkdtemp(prefix="deq-jax-tests-")
    for name, value in (
        ("jax_compilation_cache_dir", config.programs),
        ("jax_persistent_cache_min_compile_time_secs", 0.0),
        ("jax_persistent_cache_min_entry_size_bytes", -1),
    ):
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    """Which command repeats what has failed, and nothing else."""
    yield
    reports = terminalreporter.getreports("failed") + terminalreporter.getreports("error")
    if reports:
        tests = shlex.join(dict.fromkeys(report.nodeid for report in reports))
        terminalreporter.write_line(f"To repeat what failed: {sys.executable} -m pytest {tests}")


def pytest_unconfigure(config):
    shutil.rmtree(config.programs, ignore_errors=True)


@pytest.fixture
def x64():
    """Double precision for one test, where exactness is the point."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def few_compiled_programs():
    """Each takes some of the 65,530 memory mappings that Linux allows a process; without any left XLA crashes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of a tiny run trained to its end."""
    from deq_jax.tasks.presets import train
    from tests.runs import tiny

    out = tmp_path_factory.mktemp("runs") / "finished"
    assert train(tiny(out)) == 0
    return out
