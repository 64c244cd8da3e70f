"""``python -m benchmarks.splitting RUN``: evaluations of both splittings on a trained monotone run's test images.

Forward–backward is run by the step that is certain to converge, and by the best of a list of steps, which nobody knows
before; so is Peaceman–Rachford. Evaluations are means over the images, forward, to the run's own training tolerance.
"""

import functools
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import tyro

import deq_jax
from deq_jax.nn.deq import at_injection
from deq_jax.tasks.images.task import reopened, scaled
from deq_jax.training.loading import restored
from deq_jax.training.steps.model import opened

STEPS = tuple(2.0**-k for k in range(9))
"""From 1 down to 1/256."""


def main(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")], images: int = 128, max_iter: int = 2000
) -> None:
    """Compare both splittings on a run.

    Args:
        run: the folder of a finished run of a monotone cell.
        images: how many test images.
        max_iter: evaluations at most.
    """
    task, settings, config = reopened(run)
    if not config.model.is_monotone:
        raise SystemExit(f"{run} has no monotone cell, but {config.model.cell}; train one: python train.py monotone")
    built, state = restored(run, task, settings, "last")
    model = opened(built, training=False)(*state.evaluated)
    x = model.inject(scaled(task.data.splits["test"].images[:images]))
    f = jax.jit(lambda x: at_injection(model.cell, x))(x)
    L = float(f.W.norm())
    print(f"{run.name}: m = {float(f.W.m):g}, ‖I − W‖ ≤ {L:.2f}, tolerance {config.solver.tol:g}, {len(x)} images")
    z0 = model.cell.initial_state(x)
    least: dict[str, float] = {}
    for name, solver in (
        ("forward–backward", deq_jax.forward_backward),
        ("Peaceman–Rachford", deq_jax.peaceman_rachford),
    ):
        solve = jax.jit(functools.partial(_evaluations, solver, tol=config.solver.tol, max_iter=max_iter))
        rows = {"by itself": solve(f, z0, None)} | {f"alpha {a:g}": solve(f, z0, jnp.float32(a)) for a in STEPS}
        for step, (mean, converged) in rows.items():
            print(f"{name}, {step}: {float(mean):.1f} evaluations, {float(converged):.1%} converged")
        least[name] = min(float(mean) for mean, converged in rows.values() if converged == 1)
        own = float(rows["by itself"][0])
        print(f"{name}: {own:.1f} by itself, {least[name]:.1f} by the best of these steps")
    first, second = least.values()
    print(f"Peaceman–Rachford takes {second / first:.2f} of forward–backward's evaluations, each by its best step.")


def _evaluations(solver, f, z0, alpha, *, tol, max_iter):
    sol = solver(f, z0, alpha=alpha, tol=tol, max_iter=max_iter)
    return jnp.mean(sol.iterations), jnp.mean(sol.status == deq_jax.Status.CONVERGED)


if __name__ == "__main__":
    tyro.cli(main)
