"""What compiling needs: a device, its memory, and a place where programs are kept for the next start."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from deq_jax.training.errors import UserError


def use_persistent_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second start compiles nothing.

    JAX_COMPILATION_CACHE_DIR goes first.
    """
    if jax.config.jax_compilation_cache_dir is None:
        try:
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        except RuntimeError:  # nobody's home, as in a container
            return
        jax.config.update("jax_compilation_cache_dir", str(cache / "deq_jax" / "xla"))


def require_backend() -> None:
    """Raises UserError where JAX finds no device to run on."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        reason = " ".join(str(error).split()) or "no such platform is installed"
        raise UserError(
            f"JAX finds no device{f' for JAX_PLATFORMS={asked}' if asked else ''}: {reason}.\n"
            f"Install what it needs, such as pip install '.[cuda]', or set JAX_PLATFORMS=cpu."
        ) from error


@contextmanager
def told_of_memory(smaller: str) -> Iterator[None]:
    """Turns what JAX says of too little memory into a UserError, which names the settings to make smaller."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"the device has not enough memory for this run. Try a smaller {smaller}.\n"
            f"The device says: {str(error).splitlines()[0]}"
        ) from error
