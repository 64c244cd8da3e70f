import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax import Status, nn, training
from deq_jax.training.settings.precision import EPS, residual_floor
from deq_jax.training.settings.settings import Settings
from deq_jax.training.settings.solves import AdjointConfig, SolverConfig
from deq_jax.training.steps.solving import in_precision, rounding_of, unreachable
from tests.own_task import QUICK, Ordinary, ordinary_loss, own_task

FLOOR = residual_floor("bfloat16")


@pytest.fixture(scope="module")
def solved():
    """Value, residual, status and gradients of a cell in float32 and in bfloat16, by tolerance."""
    x = jax.random.normal(jax.random.key(0), (16, 8))
    cell = nn.FeedForwardCell(8, 64, kernel_init=nnx.initializers.normal(0.08), rngs=nnx.Rngs(0))
    graph, state = nnx.split(cell)

    @functools.partial(jax.jit, static_argnums=2)
    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def loss(state, x, dtype, tol):
        solver = functools.partial(deq_jax.anderson, tol=tol, max_iter=60)
        solution = nn.DEQ(nnx.merge(graph, state), solver=solver, dtype=dtype)(x)
        return jnp.mean(solution.value**2), solution

    return {dtype: {tol: loss(state, x, dtype, tol) for tol in (FLOOR, 1e-6)} for dtype in (None, jnp.bfloat16)}


@pytest.mark.long
def test_a_cell_in_bfloat16_has_the_equilibrium_and_gradients_of_float32_but_for_rounding(solved):
    ((loss, exact), gradient), ((lean_loss, lean), lean_gradient) = solved[None][1e-6], solved[jnp.bfloat16][1e-6]
    assert lean.value.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(lean_gradient)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(lean_loss, loss, rtol=1e-2)
    for ours, theirs in zip(*map(jax.tree.leaves, ((lean.value, lean_gradient), (exact.value, gradient))), strict=True):
        difference = jnp.linalg.norm(ours - theirs) / jnp.linalg.norm(theirs)
        assert 0 < difference < 2 * FLOOR  # and it is in bfloat16, indeed


def test_the_floor_is_reached_by_all_samples_and_not_left_far_behind(solved):
    (_, at_floor), _ = solved[jnp.bfloat16][FLOOR]
    assert (at_floor.status == Status.CONVERGED).all()
    (_, below), _ = solved[jnp.bfloat16][1e-6]
    assert jnp.median(below.residual) > FLOOR / 32
    (_, exact), _ = solved[None][1e-6]
    assert (exact.status == Status.CONVERGED).all()


def test_a_run_in_bfloat16_trains_and_says_which_tolerances_are_out_of_reach(tmp_path, capsys):
    settings = QUICK | {"solver": {"method": "forward-iteration", "max_iter": 10, "tol": 1e-3}, "epochs": 1}
    run = training.fit(own_task(), out=tmp_path / "run", precision="bfloat16", **settings)
    assert "note: solver.tol 0.001 is below 3.9e-03" in capsys.readouterr().out
    assert run.model.deq.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(run.model, nnx.Param))} == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(line["loss"]) for line in run.metrics)


def test_bfloat16_is_refused_where_nothing_would_be_evaluated_in_it(tmp_path):
    task = own_task(model=Ordinary, loss=ordinary_loss, metrics={})
    with pytest.raises(training.UserError, match="the model has none"):
        training.fit(task, out=tmp_path / "run", precision="bfloat16", **QUICK)


def test_a_monotone_cell_keeps_all_digits():
    layer = nn.DEQ(nn.DenseMonotoneCell(4, 3, m=1.0, rngs=nnx.Rngs(0)), dtype=jnp.bfloat16)
    with pytest.raises(ValueError, match="leave out the dtype"):
        layer(jnp.ones((2, 4)))
    with pytest.raises(TypeError, match="floating-point dtype"):
        nn.DEQ(nn.FeedForwardCell(3, 3, rngs=nnx.Rngs(0)), dtype=jnp.int8)


@pytest.mark.parametrize(("precision", "said"), [("float32", "HIGHEST"), ("tf32", "HIGH"), ("bfloat16", "None")])
def test_products_of_float32_are_told_how_exact_they_are_to_be(precision, said):
    program = jax.make_jaxpr(in_precision(precision, lambda a: a @ a))(jnp.ones((2, 2)))
    assert f"precision={said}" in str(program) or f"precision=(Precision.{said}" in str(program) or said == "None"


def test_digits_are_a_matter_of_the_devices():
    assert [rounding_of("default", platform) for platform in ("cpu", "gpu", "tpu")] == ["float32", "tf32", "bfloat16"]
    assert [rounding_of("tf32", platform) for platform in ("cpu", "gpu", "tpu")] == ["float32", "tf32", "float32"]
    assert {rounding_of("float32", platform) for platform in ("cpu", "gpu", "tpu")} == {"float32"}
    assert {rounding: jnp.finfo(rounding).eps for rounding in ("float32", "bfloat16")}.items() <= EPS.items()


def test_every_tolerance_is_looked_at(tmp_path):
    settings = Settings(tmp_path, solver=SolverConfig(tol=1e-4), adjoint=AdjointConfig(tol=1e-2), precision="bfloat16")
    assert [line.split()[1] for line in unreachable(settings, "cpu")] == ["solver.tol"]
    assert len(list(unreachable(Settings(tmp_path, solver=SolverConfig(tol=1e-4)), "gpu"))) == 2
    assert not list(unreachable(Settings(tmp_path, solver=SolverConfig(tol=1e-4)), "cpu"))
