"""What a training step of an equilibrium does before it is differentiated."""

import jax
import numpy as np
from flax import nnx

from deq_jax.tasks.puzzles.config import DataConfig
from deq_jax.tasks.puzzles.frames import frames
from deq_jax.tasks.puzzles.model import build_model
from deq_jax.tasks.puzzles.task import kind_of, learned, open_task
from deq_jax.training.settings.solves import SolverConfig
from deq_jax.training.steps.solving import build_adjoint, build_solver
from tests.puzzles import tiny


def built(config):
    solver, adjoint = build_solver(config.solver), build_adjoint(config.adjoint, config.solver)
    return build_model(config, kind_of(config.data), solver, adjoint, nnx.Rngs(0))


def injected(model, config):
    return model.inject(open_task(config, ["test"]).data.splits["test"].clues)


def test_evaluations_before_the_first_segment_are_so_many_at_most_and_differ(tmp_path):
    """The states after them are those of 0, 1 … or `before` evaluations, each at some time."""
    config = tiny(tmp_path, model={"noise": 0.0, "start": 0.0, "before": 3})
    model = built(config)
    x = injected(model, config)
    z0 = z = model.body.cell.initial_state(x)
    possible = [z]
    for _ in range(3):
        z = model.body.cell(z, x)
        possible.append(z)
    met = set()
    for _ in range(24):
        found = model.body._come_before(z0, x)
        met |= {k for k, state in enumerate(possible) if np.allclose(found, state, rtol=1e-4, atol=1e-6)}
    assert met == {0, 1, 2, 3}


def test_nothing_before_the_first_segment_has_a_gradient(tmp_path):
    """With evaluations before, and of whatever number, it is that of the segments from where they lead to."""
    config = tiny(tmp_path, model={"noise": 0.0, "start": 0.0, "before": 3})
    model = built(config)
    x = injected(model, config)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def before(params, x):
        model = nnx.merge(graph, params, rest, copy=True)
        return model.body._come_before(model.body.cell.initial_state(x), x).sum()

    for leaf in jax.tree.leaves(jax.jit(jax.grad(before, argnums=(0, 1)))(params, x)):
        assert not np.any(leaf)

    def loss(params):
        model = nnx.merge(graph, params, rest, copy=True)
        return learned(model, open_task(config, ["test"]).data.splits["test"], None).loss.mean()

    gradient = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_training_steps_are_damped_as_the_solver_s_are(tmp_path):
    """A segment of three evaluations leads to where the solver is after its third."""
    solver = SolverConfig(method="forward-iteration", max_iter=4, beta=0.7)
    config = tiny(tmp_path, model={"noise": 0.0, "start": 0.0, "segments": 1}, solver=solver)
    model = built(config)
    x = injected(model, config)
    (state,), _ = model.body.learn(x, None)
    z = model.body.cell.initial_state(x)
    for _ in range(3):
        z = 0.3 * z + 0.7 * model.body.cell(z, x)
    np.testing.assert_allclose(state[::2], z[::2], rtol=1e-4, atol=1e-6)
    residuals = model.body.solve(x).residual
    fz = model.body.cell(z, x)
    lengths = [np.linalg.norm(np.asarray(a).reshape(len(a), -1), axis=1) for a in (fz - z, fz)]
    # The solver keeps the best of its iterates, of which this is one.
    assert (residuals <= lengths[0] / lengths[1] * (1 + 1e-3)).all()


def test_frames_are_damped_as_a_solve_is(tmp_path):
    config = tiny(tmp_path, data=DataConfig("maze", 5, epoch=8, test=1))
    model, clues = built(config), open_task(config, ["test"]).data.splits["test"].clues
    x = model.inject(clues)
    z = model.body.cell.initial_state(x)
    for _ in range(2):
        z = z + 0.6 * (model.body.cell(z, x) - z)
    shares = frames(model, clues[0], [2], damping=0.6)
    np.testing.assert_allclose(shares[0], jax.nn.softmax(model.head(z))[0, ..., 1], rtol=1e-4)
