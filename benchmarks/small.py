"""One small, well-contracting problem: which solver is first in time, to compile and to run, beside jaxopt's.

``python -m benchmarks.small [--rounds N]`` prints milliseconds, of one process in an environment with jaxopt: medians
over rounds in which all contestants take turns. The problem is ``z = tanh(W z + x)`` of 2, 10 and 100 numbers, one
sample, ``W`` of norm 0.5; the gradient is that of ``Σ z²`` with respect to ``W``.
"""

import functools
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import deq_jax
from benchmarks import environments

SIZES = (2, 10, 100)
TOL = 1e-5
CALLS = 200
"""Calls in a round, so that a round outlasts the clock's grain."""


def contestants(n: int) -> dict[str, Callable[[Any, Any], Any]]:
    """Each as a function ``(W, x) -> z``, differentiable in ``W``."""
    import jaxopt

    def f(z: Any, x: Any, w: Any) -> Any:
        return jnp.tanh(z @ w + x)

    def ours(solver: Callable[..., Any]) -> Callable[[Any, Any], Any]:
        settings = functools.partial(solver, tol=TOL)
        return lambda w, x: deq_jax.fixed_point(f, jnp.zeros_like(x), x, w, solver=settings).value

    def theirs(solver: Callable[..., Any], **settings: Any) -> Callable[[Any, Any], Any]:
        # Its tolerance is absolute.
        run = solver(lambda z, w, x: f(z, x, w), maxiter=50, tol=TOL * n**0.5 / 2, implicit_diff=True, **settings).run
        return lambda w, x: run(jnp.zeros_like(x), w, x).params

    return {
        "forward_iteration": ours(deq_jax.forward_iteration),
        "anderson": ours(deq_jax.anderson),
        "broyden": ours(deq_jax.broyden),
        "jaxopt's Anderson": theirs(jaxopt.AndersonAcceleration, history_size=5),
        "jaxopt's iteration": theirs(jaxopt.FixedPointIteration),
    }


def compare(n: int, rounds: int) -> list[str]:
    """A line for each contestant: milliseconds to compile and microseconds to run, forward and gradient."""
    w = jax.random.normal(jax.random.key(0), (n, n))
    w, x = 0.5 * w / jnp.linalg.norm(w, 2), jax.random.normal(jax.random.key(1), (1, n))
    programs, compiled = {}, {}
    for turn in range(3):
        for name, solve in contestants(n).items():
            forward = jax.jit(lambda w, x, solve=solve, turn=turn: solve(w, x))
            gradient = jax.jit(jax.grad(lambda w, x, solve=solve, turn=turn: jnp.sum(solve(w, x) ** 2)))
            for part, program in (("forward", forward), ("gradient", gradient)):
                jax.clear_caches()
                start = time.perf_counter()
                programs[name, part] = program.lower(w, x).compile()
                compiled.setdefault((name, part), []).append(time.perf_counter() - start)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in programs}
    for _ in range(rounds):
        for key, program in programs.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                out = program(w, x)
            out.block_until_ready()
            seconds[key].append((time.perf_counter() - start) / CALLS)

    def cells(name: str) -> str:
        parts = [(name, "forward"), (name, "gradient")]
        figures = [(1e3 * statistics.median(compiled[part]), 1e6 * statistics.median(seconds[part])) for part in parts]
        return "".join(f"{compiling:8.0f} ms{running:8.1f} µs" for compiling, running in figures)

    return [f"{n:4} {name:20}{cells(name)}" for name in contestants(n)]


def main() -> None:
    """Run in the environment that has jaxopt."""
    if importlib.util.find_spec("jaxopt") is None:
        subprocess.run([environments.jax_peers(), "-m", "benchmarks.small", *sys.argv[1:]], check=True)
        return
    rounds = int(sys.argv[sys.argv.index("--rounds") + 1]) if "--rounds" in sys.argv else 15
    print(f"   n {'':20}{'compile, run: forward':>22}{'gradient':>22}")
    for n in SIZES:
        print("\n".join(compare(n, rounds)), flush=True)


if __name__ == "__main__":
    main()
