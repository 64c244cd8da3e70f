import jax
import pytest


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
    """The folder of a tiny run trained to its end; compiled programs are kept where only these tests look."""
    from deq_jax.tasks.images.train import train
    from tests.runs import tiny

    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("xla")))
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert train(tiny(out)) == 0
    return out
