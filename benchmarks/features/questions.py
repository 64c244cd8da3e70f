"""The questions, and what an answer is tried on; NumPy only, for every environment imports this.

A library answers by a class that has a method for every name of ``QUESTIONS``. What raises is a no.
"""

import contextlib
import io
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

QUESTIONS = {
    "anderson": "Anderson acceleration",
    "broyden": "Broyden's method",
    "exact_gradient": "Exact implicit gradient, in float64 to 1e-6",
    "closed_over": "… of what the cell closes over, too",
    "second_derivative": "Second derivatives",
    "forward_mode": "Forward mode, by `jax.jvp`",
    "phantom": "Phantom or Jacobian-free gradient",
    "neighbours": "A sample's answer is the same without its neighbours, to 1e-12",
    "nan": "A sample of NaN leaves the others' answers alone",
    "best": "The best iterate is kept",
    "per_sample": "Residual and evaluations of each sample",
    "backward_report": "The backward solve reports itself",
    "jacobian_penalty": "Jacobian penalty and spectral radius",
    "multiscale": "Cells of several resolutions",
    "training": "Training program: data, logs, checkpoints, resume",
}

rng = np.random.default_rng(0)
W = rng.normal(size=(6, 6))
W *= 0.8 / np.abs(np.linalg.eigvals(W)).max()
X = rng.normal(size=(3, 6))
"""Solve ``z = tanh(z W + x)`` for each of three samples; the last is slower than the first."""
X[0] *= 3.0
X[2] *= 0.1
TOL, MAX_ITER = 1e-10, 200


def exact() -> tuple[np.ndarray, np.ndarray]:
    """The equilibrium ``[3, 6]``, and the gradient of half its squared norm with respect to ``W``, densely."""
    z = np.zeros_like(X)
    for _ in range(5000):
        z = np.tanh(z @ W + X)
    gradient = np.zeros_like(W)
    for n in range(len(X)):
        slope = 1 - z[n] ** 2
        g = np.linalg.solve(np.eye(6) - W * slope[None, :], z[n])
        gradient += np.outer(z[n], slope * g)
    return z, gradient


START = 1 - 1 / 3.9 + 1e-3


def leaving(z: Any) -> Any:
    """The logistic map, chaotic: plain iteration leaves the fixed point ``1 − 1/3.9`` near which it starts."""
    return 3.9 * z * (1 - z)


def stayed(z: float) -> bool:
    """Whether what a solver returned is as good as where it started."""
    return abs(leaving(z) - z) <= 3.9 * abs(leaving(START) - START)


def close(a: Any, b: Any, tolerance: float = 1e-6) -> bool:
    """Whether two arrays agree, relative to the second."""
    a, b = np.asarray(a), np.asarray(b)
    return bool(np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b))


def derivative(gradient: Callable[[np.ndarray], np.ndarray]) -> float:
    """By central differences, of the squared norm of a gradient, along a fixed direction."""
    direction = np.ones_like(W) / W.size
    step = 1e-4
    up, down = ((np.asarray(gradient(W + sign * step * direction)) ** 2).sum() for sign in (1, -1))
    return (up - down) / (2 * step)


def answer(library: Any) -> None:
    """Print one library's answers as a JSON object."""
    answers = {}
    for name in QUESTIONS:
        ask = getattr(library, name)  # outside: a question that nobody has put to this library is no no
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answers[name] = bool(ask())
        except Exception as error:  # noqa: BLE001 — what raises is a no
            print(f"{name}: {type(error).__name__}: {error}".splitlines()[0][:200], file=sys.stderr)
            answers[name] = False
    print(json.dumps(answers))
