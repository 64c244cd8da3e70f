import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax import evaluate, nn
from deq_jax.tasks.inverse.blur import blur_matrix, blurred
from deq_jax.tasks.inverse.config import DataConfig, ModelConfig
from deq_jax.tasks.inverse.data import Patched, photographs
from deq_jax.tasks.inverse.model import apply_blur, build_model
from deq_jax.tasks.inverse.task import open_task, restored
from deq_jax.tasks.presets import train
from deq_jax.training.settings.update import PenaltyConfig
from deq_jax.training.steps.solving import build_adjoint, build_solver
from tests.inverse import tiny
from tests.runs import records, without_times


def built(config):
    solver, adjoint = build_solver(config.solver), build_adjoint(config.adjoint, config.solver)
    return build_model(config, solver, adjoint, nnx.Rngs(0))


def test_a_blur_is_its_own_transpose_and_keeps_what_is_even():
    matrix = blur_matrix(32, 1.5)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert np.linalg.norm(matrix, 2) <= 1
    inner = blurred(np.ones((1, 32, 32), np.float32), matrix)[0, 8:-8, 8:-8]
    np.testing.assert_allclose(inner, 1, atol=1e-4)
    z, y = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    np.testing.assert_allclose((blurred(z, matrix) * y).sum(), (z * blurred(y, matrix)).sum(), atol=1e-3)
    np.testing.assert_allclose(
        apply_blur(jnp.asarray(matrix), jnp.asarray(z)[..., None])[..., 0], blurred(z, matrix), atol=1e-5
    )


def test_a_point_becomes_a_bell_of_the_deviation_that_was_asked_for():
    matrix = blur_matrix(41, 2.0)
    places = np.arange(41) - 20
    np.testing.assert_allclose((matrix[20] * places**2).sum(), 2.0**2, rtol=1e-3)


def test_training_and_testing_see_different_parts_of_the_photographs():
    """Every patch of either split is found in its own part, and in no other."""
    edges = [round(0.7 * photograph.shape[1]) for photograph in photographs()]
    for split, holds in (
        ("train", lambda column, edge: column + 8 <= edge),
        ("test", lambda column, edge: column >= edge),
    ):
        for patch in Patched(DataConfig(side=8), split, 6, 0)[:].clean:
            found = []
            for photograph, edge in zip(photographs(), edges, strict=True):
                windows = np.lib.stride_tricks.sliding_window_view(photograph, (8, 8))
                found += [(column, edge) for _, column in np.argwhere((windows == patch).all((2, 3)))]
            assert found
            assert all(holds(column, edge) for column, edge in found)


def test_a_patch_is_a_matter_of_the_seed_and_its_number():
    data = DataConfig(side=16, noise=0.1)
    batch = Patched(data, "train", 10, 1)[np.array([3, 1_000])]
    again = Patched(data, "train", 99, 1)[np.array([1_000])]
    np.testing.assert_array_equal(batch.measured[1:], again.measured)
    error = batch.measured - blurred(batch.clean, blur_matrix(16, 1.5))
    assert 0.09 < error.std() < 0.11


def test_the_cell_is_a_gradient_step_at_first(x64):
    """Without a correction its equilibrium solves ``AᵀA z = Aᵀy``."""
    eigenvalues = jnp.linspace(0.5, 1.0, 36).reshape(1, 6, 6, 1)
    cell = nn.CorrectedGradientCell(lambda z: eigenvalues * z, 1, 4, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 1))
    z = deq_jax.forward_iteration(lambda z: cell(z, x), cell.initial_state(x), tol=1e-10, max_iter=200).value
    np.testing.assert_allclose(z, x / eigenvalues, rtol=1e-8)


def test_the_correction_is_added_to_the_step(x64):
    cell = nn.CorrectedGradientCell(lambda z: 0.3 * z, 1, 4, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    cell.conv3.kernel[...] = jax.random.normal(jax.random.key(1), cell.conv3.kernel.shape)
    cell.step[...] = jnp.asarray(0.5)
    z, x = jax.random.normal(jax.random.key(0), (2, 1, 6, 6, 1))
    g = z - 0.5 * (0.3 * z - x)
    expected = g + cell.conv3(jax.nn.relu(cell.conv2(jax.nn.relu(cell.conv1(g)))))
    np.testing.assert_allclose(cell(z, x), expected)


def test_the_ratio_is_that_of_the_error(tmp_path):
    config = tiny(tmp_path)
    pair = open_task(config, ["test"]).data.splits["test"]
    outcome = restored(built(config), pair, None, is_training=False)
    error = np.mean((np.asarray(outcome.solution.value)[..., 0] - pair.clean) ** 2, axis=(1, 2))
    np.testing.assert_allclose(outcome.metrics["psnr"], 10 * np.log10(1 / error), rtol=1e-4)
    np.testing.assert_allclose(outcome.loss, 100 * error, rtol=1e-4)


def test_an_unrolled_network_takes_its_steps_in_training_and_others_in_an_evaluation(tmp_path):
    config = tiny(tmp_path, model=ModelConfig("unrolled", channels=4, steps=3))
    model, pair = built(config), open_task(config, ["test"]).data.splits["test"]
    z = x = model.inject(pair.measured)
    for _ in range(3):
        z = model.cell(z, x)
    np.testing.assert_allclose(model(pair.measured, is_training=True).value, z, rtol=1e-4, atol=1e-6)
    assert (model(pair.measured).iterations == 6).all()


@pytest.mark.long
def test_a_stopped_run_ends_as_one_that_went_through_and_is_evaluated(tmp_path, capsys):
    for steps in (2, None):
        assert train(tiny(tmp_path / "in-two", max_steps=steps), is_quiet=True) == 0
    assert train(tiny(tmp_path / "at-once"), is_quiet=True) == 0
    one, other = (without_times(records(tmp_path / name)) for name in ("in-two", "at-once"))
    assert [line for line in one if line["kind"] == "train"] == [line for line in other if line["kind"] == "train"]
    capsys.readouterr()
    evaluate.main([str(tmp_path / "at-once"), "--max-iter", "9", "--tol", "1e-5"])
    result = json.loads(capsys.readouterr().out)
    assert (result["count"], result["max_iter"], result["tol"]) == (4, 9, 1e-5)
    assert result["psnr"] > 10
    with pytest.raises(SystemExit):
        evaluate.main([str(tmp_path / "at-once"), "--difficulty", "3"])
    assert "a blur is as it was in training" in capsys.readouterr().err


def test_settings_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match="side must be from 8 to 160"):
        DataConfig(side=500)
    with pytest.raises(ValueError, match="noise must not be negative"):
        DataConfig(noise=-1.0)
    with pytest.raises(ValueError, match=r"penalty\.weight needs an equilibrium"):
        dataclasses.replace(tiny(tmp_path), model=ModelConfig("unrolled"), penalty=PenaltyConfig(weight=1.0))
