"""Compiling once: ahead of the first step, and kept for the next start."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def use_persistent_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second start compiles nothing.

    JAX_COMPILATION_CACHE_DIR goes first.
    """
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "deq_jax" / "xla"))


def compiled(function: Callable[..., Any], *arguments: Any, donate_argnums: tuple[int, ...] = ()) -> Callable[..., Any]:
    """The function compiled for arguments of these shapes and types; it refuses others instead of compiling again."""
    return jax.jit(function, donate_argnums=donate_argnums).lower(*arguments).compile()
