from pathlib import Path

import jax.numpy as jnp
import pytest

import deq_jax
from deq_jax import nn
from deq_jax.tasks.images.build import build_model, build_solver
from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.groups import ModelConfig
from deq_jax.training.settings.solves import SolverConfig


@pytest.mark.parametrize(
    ("method", "solver", "options"),
    [
        ("anderson", deq_jax.anderson, {"m": 3, "lam": 1e-3, "beta": 0.5}),
        ("broyden", deq_jax.broyden, {"m": 3}),
        ("forward-iteration", deq_jax.forward_iteration, {}),
    ],
)
def test_a_method_is_the_solver_of_that_name_with_the_settings_it_reads(method, solver, options):
    built = build_solver(SolverConfig(method=method, tol=1e-3, max_iter=30, m=3, lam=1e-3, beta=0.5))
    assert built.func is solver
    assert built.keywords == {"tol": 1e-3, "max_iter": 30, **options}
    solution = built(lambda z: jnp.cos(z), jnp.zeros((1, 2)))
    assert solution.status == deq_jax.Status.CONVERGED


@pytest.mark.parametrize(
    ("name", "cell"),
    [("resnet", nn.ResNetCell), ("pre-activation", nn.PreActivationCell), ("injection", nn.InjectionCell)],
)
def test_a_cell_is_the_one_of_that_name(name, cell):
    model = ModelConfig(kind="deq", channels=8, inner_channels=16, pool=4, cell=name)
    assert type(build_model(Config("digits", Path("x"), model=model), (8, 8, 1), 10).cell) is cell
