"""The libraries in JAX. jaxopt and optimistix solve one problem, so each is mapped over the batch."""

import functools
import importlib
import pkgutil
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.features.questions import (
    MAX_ITER,
    START,
    TOL,
    W,
    X,
    answer,
    close,
    derivative,
    exact,
    leaving,
    stayed,
)

jax.config.update("jax_enable_x64", True)


def cell(z: jax.Array, x: jax.Array, W: jax.Array) -> jax.Array:
    """One sample's, or a batch's."""
    return jnp.tanh(z @ W + x)


class Library:
    """What is asked of all in the same way."""

    name: str

    def solve(self, W: jax.Array, x: jax.Array) -> jax.Array:
        """The equilibria of a batch, from parameters as arguments."""
        raise NotImplementedError

    def solve_closed_over(self, W: jax.Array, x: jax.Array) -> jax.Array:
        """The same, from a cell that closes over its parameters."""
        raise NotImplementedError

    def has(self, *words: str) -> bool:
        """Whether a public name of the package has one of the words in it."""
        names = " ".join(dir(importlib.import_module(self.name))).lower()
        return any(word in names for word in words)

    def anderson(self) -> bool:
        return self.has("anderson")

    def broyden(self) -> bool:
        return self.has("broyden")

    def gradient(self, W: Any, solve: Callable | None = None) -> jax.Array:
        solve = solve or self.solve
        return jax.jit(jax.grad(lambda W: 0.5 * jnp.sum(solve(W, jnp.asarray(X)) ** 2)))(jnp.asarray(W))

    def exact_gradient(self) -> bool:
        return close(self.gradient(W), exact()[1])

    def closed_over(self) -> bool:
        return close(self.gradient(W, self.solve_closed_over), exact()[1])

    def second_derivative(self) -> bool:
        direction = jnp.ones_like(W) / W.size
        squared = jax.grad(lambda W: jnp.sum(self.gradient(W) ** 2))(jnp.asarray(W))
        return close(jnp.sum(squared * direction), derivative(self.gradient), 1e-4)

    def forward_mode(self) -> bool:
        _, tangent = jax.jvp(lambda x: self.solve(jnp.asarray(W), x), (jnp.asarray(X),), (jnp.ones_like(X),))
        h = 1e-5
        up, down = (self.solve(jnp.asarray(W), jnp.asarray(X + sign * h)) for sign in (1, -1))
        return close(tangent, (up - down) / (2 * h), 1e-4)

    def phantom(self) -> bool:
        return self.has("phantom", "jacobian_free", "jfb")

    def neighbours(self) -> bool:
        together = self.solve(jnp.asarray(W), jnp.asarray(X))
        return close(self.solve(jnp.asarray(W), jnp.asarray(X[:1])), together[:1], 1e-12)

    def nan(self) -> bool:
        bad = X.copy()
        bad[1] = np.nan
        return close(self.solve(jnp.asarray(W), jnp.asarray(bad))[::2], exact()[0][::2])

    def jacobian_penalty(self) -> bool:
        return self.has("jacobian_penalty", "jac_reg") and self.has("spectral_radius", "power_method")

    def multiscale(self) -> bool:
        return self.has("multiscale", "mdeq")

    def training(self) -> bool:
        modules = {module.name for module in pkgutil.iter_modules(importlib.import_module(self.name).__path__)}
        return bool(modules & {"training", "train"})


class DeqJax(Library):
    """deq_jax."""

    name = "deq_jax"

    def settings(self) -> Any:
        import deq_jax

        return functools.partial(deq_jax.anderson, tol=TOL, max_iter=MAX_ITER)

    def solve(self, W: jax.Array, x: jax.Array) -> jax.Array:
        import deq_jax

        return deq_jax.fixed_point(cell, jnp.zeros_like(x), x, W, solver=self.settings()).value

    def solve_closed_over(self, W: jax.Array, x: jax.Array) -> jax.Array:
        import deq_jax

        return deq_jax.fixed_point(lambda z: cell(z, x, W), jnp.zeros_like(x), solver=self.settings()).value

    def forward_mode(self) -> bool:
        import deq_jax

        self.solve = lambda W, x: (
            deq_jax.fixed_point_jvp(  # type: ignore[method-assign]
                cell, jnp.zeros_like(x), x, W, solver=self.settings()
            ).value
        )
        return super().forward_mode()

    def best(self) -> bool:
        import deq_jax

        z = deq_jax.forward_iteration(leaving, jnp.full((1, 1), START), tol=TOL, max_iter=12).value
        return stayed(float(z[0, 0]))

    def per_sample(self) -> bool:
        sol = self.settings()(lambda z: cell(z, jnp.asarray(X), jnp.asarray(W)), jnp.zeros_like(X))
        return sol.residual.shape == sol.iterations.shape == (3,) and len(set(sol.iterations.tolist())) > 1

    def multiscale(self) -> bool:
        from deq_jax import nn

        return any("multiscale" in name.lower() for name in nn.__all__)

    def backward_report(self) -> bool:
        import deq_jax

        def loss(report: Any) -> jax.Array:
            return jnp.sum(deq_jax.fixed_point(cell, jnp.zeros_like(X), X, W, report=report).value)

        return bool((jax.grad(loss)(deq_jax.adjoint_report(3)).iterations > 0).all())


class Jaxopt(Library):
    """jaxopt's Anderson acceleration with implicit differentiation."""

    name = "jaxopt"

    def run(self, f: Callable, x: jax.Array, *args: Any) -> Any:
        import jaxopt

        solver = jaxopt.AndersonAcceleration(f, maxiter=MAX_ITER, tol=TOL, implicit_diff=True)
        return jax.vmap(lambda x: solver.run(jnp.zeros_like(x), x, *args))(x)

    def solve(self, W: jax.Array, x: jax.Array) -> jax.Array:
        return self.run(cell, x, W).params

    def solve_closed_over(self, W: jax.Array, x: jax.Array) -> jax.Array:
        return self.run(lambda z, x: cell(z, x, W), x).params

    def best(self) -> bool:
        import jaxopt

        return stayed(float(jaxopt.FixedPointIteration(leaving, maxiter=12, tol=TOL).run(jnp.array(START)).params))

    def per_sample(self) -> bool:
        state = self.run(cell, jnp.asarray(X), jnp.asarray(W)).state
        return state.error.shape == state.iter_num.shape == (3,) and len(set(state.iter_num.tolist())) > 1

    def backward_report(self) -> bool:
        return self.has("report")


class Optimistix(Library):
    """optimistix's fixed-point iteration with its implicit adjoint."""

    name = "optimistix"

    def run(self, f: Callable, x: jax.Array, W: Any) -> Any:
        import optimistix

        solver = optimistix.FixedPointIteration(rtol=TOL, atol=TOL)
        return jax.vmap(
            lambda x: optimistix.fixed_point(f, solver, jnp.zeros_like(x), (x, W), max_steps=MAX_ITER, throw=False)
        )(x)

    def solve(self, W: jax.Array, x: jax.Array) -> jax.Array:
        return self.run(lambda z, args: cell(z, *args), x, W).value

    def solve_closed_over(self, W: jax.Array, x: jax.Array) -> jax.Array:
        return self.run(lambda z, args: cell(z, args[0], W), x, None).value

    def best(self) -> bool:
        import optimistix

        solver = optimistix.BestSoFarFixedPoint(optimistix.FixedPointIteration(rtol=TOL, atol=TOL))
        f = lambda z, args: leaving(z)
        return stayed(float(optimistix.fixed_point(f, solver, jnp.array(START), max_steps=12, throw=False).value))

    def per_sample(self) -> bool:
        sol = self.run(lambda z, args: cell(z, *args), jnp.asarray(X), jnp.asarray(W))
        steps = sol.stats["num_steps"]
        has_residual = any("resid" in name or "error" in name for name in [*sol.stats, *dir(sol.state)])
        return steps.shape == (3,) and len(set(steps.tolist())) > 1 and has_residual

    def backward_report(self) -> bool:
        return self.has("report")


if __name__ == "__main__":
    answer({"deq_jax": DeqJax, "jaxopt": Jaxopt, "optimistix": Optimistix}[sys.argv[1]]())
