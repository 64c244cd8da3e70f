"""What is waited for before the first step: ``python -m benchmarks.training.startup``.

Importing the library, on top of importing JAX, and compiling the chapter's training step, without the compiler's
cache and with it; each in a fresh process.
"""

import statistics
import subprocess
import sys
import tempfile

import tyro

IMPORT = """
import time
import jax
start = time.perf_counter()
import deq_jax
print(time.perf_counter() - start)
"""
COMPILE = """
import sys, time, jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
from deq_jax.tasks.images.build import build_model
from deq_jax.tasks.images.data import Examples
from deq_jax.tasks.images.presets import PRESETS
from deq_jax.tasks.images.task import classification_loss
from deq_jax.training.steps.optimizer import build_optimizer
from deq_jax.training.steps.step import create_state, make_train_step
config = PRESETS["cifar10-tutorial"]()
model, optimizer = build_model(config, (32, 32, 3), 10), build_optimizer(config.optimizer, 100)
state = create_state(model, optimizer)
images = jax.ShapeDtypeStruct((config.batch_size, 32, 32, 3), "uint8")
batch = Examples(images, jax.ShapeDtypeStruct((config.batch_size,), "int32"))
start = time.perf_counter()
step = make_train_step(model, classification_loss, optimizer)
jax.jit(step, donate_argnums=0).lower(state, batch).compile()
print(time.perf_counter() - start)
"""


def main(repeats: int = 5) -> None:
    """Print the medians, in seconds.

    Args:
        repeats: fresh processes for each.
    """
    cold, warm = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(_seconds(COMPILE, cache))
            warm.append(_seconds(COMPILE, cache))
    imports = statistics.median(_seconds(IMPORT) for _ in range(repeats))
    print(f"import deq_jax, after import jax: {imports:.2f} s; the goal is 1 s")
    print(f"tracing and compiling the chapter's step: {statistics.median(cold):.1f} s; the goal is 15 s")
    print(f"the same with the compiler's cache: {statistics.median(warm):.1f} s")


def _seconds(program: str, *arguments: str) -> float:
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    tyro.cli(main)
