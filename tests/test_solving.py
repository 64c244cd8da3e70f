import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax.training.settings.settings import Settings
from deq_jax.training.settings.solves import AdjointConfig, EvaluationSettings, SolverConfig
from deq_jax.training.steps.phases import Phase
from deq_jax.training.steps.solving import build_adjoint, build_solver, evaluation_model, training_model
from deq_jax.training.task import Data, Task


class Model(nnx.Module):
    def __init__(self, solver, adjoint, rngs):
        del adjoint, rngs
        self.solver = solver


@pytest.mark.parametrize(
    ("method", "solver", "options"),
    [
        ("anderson", deq_jax.anderson, {"m": 3, "lam": 1e-3, "beta": 0.5}),
        ("broyden", deq_jax.broyden, {"m": 3}),
        ("forward-iteration", deq_jax.forward_iteration, {"damping": 0.5}),
    ],
)
def test_a_method_is_the_solver_of_that_name_with_the_settings_it_reads(method, solver, options):
    config = SolverConfig(method=method, tol=1e-3, atol=1e-9, max_iter=30, m=3, lam=1e-3, beta=0.5)
    built = build_solver(config)
    assert built.func is solver
    assert built.keywords == {"tol": 1e-3, "atol": 1e-9, "max_iter": 30, **options}
    solution = built(lambda z: jnp.cos(z), jnp.zeros((1, 2)))
    assert solution.status == deq_jax.Status.CONVERGED


@pytest.mark.parametrize(
    ("kind", "expected"),
    # g = a g + y with a = 1/2, y = 1: solved, after two products, and y itself.
    [("implicit", 2.0), ("phantom", 1.75), ("jacobian-free", 1.0)],
)
def test_an_adjoint_is_the_one_of_that_name(kind, expected):
    solver = SolverConfig(tol=1e-6, max_iter=50)
    for adjoint in (
        build_adjoint(AdjointConfig(kind=kind, steps=2), solver),
        build_adjoint(AdjointConfig(steps=2), solver, kind),
    ):
        y = jnp.ones((1, 1))
        solution = adjoint(lambda g: 0.5 * g, y, deq_jax.fixed_point)
        # Float32, and a relative residual of 1e-6.
        np.testing.assert_allclose(solution.value, expected * y, rtol=1e-4)


def test_a_model_solves_as_its_phase_and_an_evaluation_as_its_own_settings_say(tmp_path):
    settings = Settings(
        tmp_path, solver=SolverConfig(tol=0.1, max_iter=9), evaluation=EvaluationSettings(tol=0.01, max_iter=30)
    )
    task = Task(Data({}), Model, None, None)
    trained = training_model(task, settings, Phase("implicit", 4, has_penalty=False)).solver.keywords
    evaluated = evaluation_model(task, settings).solver.keywords
    assert (trained["tol"], trained["max_iter"]) == (0.1, 4)
    assert (evaluated["tol"], evaluated["max_iter"]) == (0.01, 30)
