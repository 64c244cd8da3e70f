"""The parts of deq_jax's training step, inside a compiled loop and outside: ``python -m benchmarks.training.parts``.

A cell evaluation, a product with its transposed Jacobian and an Anderson iteration without the cell, in milliseconds
and, where they are matrix products at heart, as a share of the machine's own rate of matrix products, measured in the
same run. Then whole training steps, over what their evaluations cost in a loop.
"""

import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import tyro
from flax import nnx
from jax import lax
from jaxtyping import Array

import deq_jax
from benchmarks.training import batches, exchange
from benchmarks.training.contestants import ours
from benchmarks.training.contestants.jax_model import build_model
from benchmarks.training.exchange import INITIAL, Problem

LOOPS = (14, 4)
"""Iterations of the two loops whose difference is the cost of one iteration, and of nothing around it."""
STOCK_LOOPS = (2, 1)
"""The same for the stock cell, whose transposed convolutions take seconds in a loop."""


class Part(NamedTuple):
    """A piece of work, run once on its own, and in a loop of given length."""

    outside: Callable[[], Any]
    inside: Callable[[int], Any]
    products: float = 0.0
    """Multiplications and additions in its convolutions."""
    loops: tuple[int, int] = LOOPS


def main(
    batch: int = 100,
    repeats: int = 7,
    steps: int = 5,
    data_dir: Path | None = None,
    out: Path = Path("benchmarks/results"),
) -> None:
    """Time the parts in turns, print them, and write ``training_parts.json``.

    Args:
        batch: images.
        repeats: timings of each part; the median counts.
        steps: whole training steps to time; 0 for none.
        data_dir: where TFDS has prepared CIFAR-10; scikit-learn's digits, enlarged, by default.
        out: where to write.
    """
    problem = Problem(batch=batch)
    rate, outside, inside, products = measure(parts(problem), repeats)
    print(f"matrix products: {rate / 1e9:.0f} GFLOP/s, batch {batch}, {repeats} repeats\n")
    print(f"{'':14}{'alone':>12}{'in a loop':>12}{'share of matrix products':>28}")
    for name in outside:
        shares = [f"{products[name] / seconds / rate:.0%}" for seconds in (outside[name], inside[name])]
        said = f"{shares[0]} alone, {shares[1]} in a loop" if products[name] else ""
        print(f"{name:14}{outside[name] * 1e3:9.1f} ms{inside[name] * 1e3:9.1f} ms{said:>28}")
    ratio = inside["Anderson"] / inside["cell"]
    print(f"\nan Anderson iteration without the cell: {ratio:.0%} of a cell evaluation in a loop; the goal is 25%")
    content = {"batch": batch, "product_rate": rate, "alone": outside, "in_loop": inside, "anderson_ratio": ratio}
    if steps:
        content["step"] = whole_step(problem, steps, data_dir, inside["cell"], inside["VJP"])
    out.mkdir(parents=True, exist_ok=True)
    (out / "training_parts.json").write_text(json.dumps(content, indent=1) + "\n")


def parts(problem: Problem) -> dict[str, Part]:
    """The cell and its VJP, deq_jax's and the stock one's, and an Anderson iteration."""
    height, width, _ = problem.image
    shape = (problem.batch, height, width, problem.channels)
    z, x = (jax.random.normal(key, shape) for key in jax.random.split(jax.random.key(0)))
    pixels = problem.batch * height * width
    products = 4 * problem.kernel_size**2 * problem.channels * problem.inner_channels * pixels
    found = {}
    for suffix, stock in (("", False), (", stock", True)):
        loops = STOCK_LOOPS if stock else LOOPS
        graph, state = nnx.split(build_model(problem, ours.layer, stock=stock).deq.cell)

        def f(z: Array, constants: Any, graph: nnx.GraphDef = graph) -> Array:
            state, x = constants
            return nnx.merge(graph, state)(z, x)

        pull_back = jax.jit(lambda z, constants, f=f: jax.vjp(lambda z: f(z, constants), z)[1])(z, (state, x))
        found[f"cell{suffix}"] = _part(f, z, (state, x), products, loops)
        # With the cotangent added, as in the adjoint equation; without, g would shrink to slow, denormal numbers.
        found[f"VJP{suffix}"] = _part(lambda g, c: c[0](g)[0] + c[1], z, (pull_back, x), products, loops)
    rates = jax.random.uniform(jax.random.key(1), shape, minval=-0.99, maxval=0.99)
    found["stand-in"] = _part(_stand_in, z, (rates, x), 0.0, LOOPS)
    found["Anderson"] = _anderson(problem, z, (rates, x))
    return found


def _part(f: Callable[[Array, Any], Array], z: Array, constants: Any, products: float, loops: tuple[int, int]) -> Part:
    """``z ↦ f(z, constants)``, compiled."""
    alone = jax.jit(f)
    looped = jax.jit(lambda z, constants, n: lax.fori_loop(0, n, lambda _, z: f(z, constants), z))
    jax.block_until_ready((alone(z, constants), looped(z, constants, 1)))
    return Part(lambda: alone(z, constants), lambda n: looped(z, constants, n), products, loops)


def _stand_in(z: Array, constants: tuple[Array, Array]) -> Array:
    """A cell that costs next to nothing, and on which Anderson acceleration does not converge too soon."""
    rates, x = constants
    return rates * z + x


def _anderson(problem: Problem, z: Array, constants: tuple[Array, Array]) -> Part:
    """An iteration around the stand-in; and, alone, the rule's update, its history donated."""
    solver = sys.modules["deq_jax.solvers.anderson"]
    with mock.patch.object(solver, "solve", lambda rule, *_, **__: rule):
        rule = deq_jax.anderson(lambda z: z, z, m=problem.m)
    flat = z.reshape(len(z), -1)
    update = jax.jit(rule.update, donate_argnums=2)
    half = 0.5 * flat
    history = jax.tree.map(jnp.copy, rule.init(flat))  # a buffer each, to be donated

    def alone() -> Array:
        nonlocal history
        proposed, history = update(flat, half, history, jnp.int32(7))
        return proposed

    @functools.partial(jax.jit, static_argnums=2)
    def looped(z: Array, constants: Any, n: int) -> Array:
        return deq_jax.anderson(lambda z: _stand_in(z, constants), z, m=problem.m, tol=1e-30, max_iter=n).value

    jax.block_until_ready((alone(), *(looped(z, constants, n) for n in LOOPS)))
    return Part(alone, lambda n: looped(z, constants, n))


def measure(parts: dict[str, Part], repeats: int) -> tuple[float, dict[str, float], dict[str, float], dict[str, float]]:
    """The rate of matrix products, the medians in seconds alone and in a loop, and the parts' operations, by name.

    The stand-in's share of Anderson's loop is taken off.
    """
    rates: list[float] = []
    outside: dict[str, list[float]] = {name: [] for name in parts}
    inside: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats):
        rates.append(_product_rate())
        for name, part in parts.items():
            outside[name].append(_seconds(part.outside))
            long, short = part.loops
            inside[name].append((_seconds(part.inside, long) - _seconds(part.inside, short)) / (long - short))
    alone, looped = ({name: statistics.median(t) for name, t in times.items()} for times in (outside, inside))
    looped["Anderson"] -= looped["stand-in"]
    return statistics.median(rates), alone, looped, {name: part.products for name, part in parts.items()}


def whole_step(problem: Problem, steps: int, data_dir: Path | None, cell: float, vjp: float) -> dict[str, float]:
    """Training steps at the first weights and one batch, beside their evaluations at the given seconds each."""
    with tempfile.TemporaryDirectory() as folder:
        images, labels = batches.draw_batches(problem, 1, data_dir)
        exchange.write(Path(folder), problem, {INITIAL: batches.draw_weights(problem)}, images, labels)
        contestant = ours.build(Path(folder))
    started = time.perf_counter()
    contestant.step(0)
    first = time.perf_counter() - started
    times = []
    for _ in range(steps):
        contestant.reset()
        times.append(_seconds(contestant.step, 0))
    contestant.reset()
    counts, _ = contestant.inspect(0)
    step = statistics.median(times)
    evaluations = counts["forward"] * cell + counts["backward"] * vjp
    said = f"{counts['forward']} evaluations and {counts['backward']} VJPs take {evaluations:.2f} s in a loop"
    print(f"a training step: {step:.2f} s; its {said}: {step / evaluations:.2f} times that; the goal is 1.3")
    print(f"the first step, compilation included: {first:.1f} s; the goal for compilation is 15 s")
    return {"seconds": step, "evaluations_seconds": evaluations, "ratio": step / evaluations, "first": first, **counts}


def _product_rate(size: int = 2048) -> float:
    """Floating-point operations a second of a square float32 matrix product."""
    a = jnp.ones((size, size))
    jax.block_until_ready(_product(a))
    return 2 * size**3 / min(_seconds(_product, a) for _ in range(3))


_product = jax.jit(lambda a: a @ a)


def _seconds(run: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    jax.block_until_ready(run(*arguments))
    return time.perf_counter() - started


if __name__ == "__main__":
    tyro.cli(main)
