import json

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import deq_jax
from benchmarks import problems, solvers
from benchmarks.solvers import Outcome, Row


def halving(max_iter=100):
    """The map z/2 + 1: the equilibrium is 2, and forward iteration's residual 2^-k / (2 - 2^-k) exactly."""
    zeros = jnp.zeros((2, 3))
    return problems.Problem("halving", lambda z, x, w: w * z + x, zeros, zeros + 1, jnp.array(0.5), 1e-6, max_iter)


def row(name, anderson, forward, scipy=(9, True), max_iter=100):
    def outcome(pair):
        return Outcome([pair[0]], [0.0 if pair[1] else 1.0], [pair[1]], [""])

    named = {"forward_iteration": forward, "anderson": anderson, "scipy anderson": scipy}
    return Row(name, "float64", [1, 2], 1e-3, max_iter, {key: outcome(pair) for key, pair in named.items()})


@pytest.fixture(scope="module")
def suite():
    import jax

    with jax.enable_x64(True):
        yield problems.suite()


@pytest.mark.long
def test_the_suite_holds_what_it_promises(suite):
    names = [problem.name for problem in suite]
    assert len(names) == len(set(names)) >= 20
    assert {str(problem.z0.dtype) for problem in suite} == {"float64", "float32", "bfloat16", "float16"}
    for words in ("symmetric 0.5", "general 0.999", "rotation", "tanh", "resnet", "stiff", "nearly singular"):
        assert any(words in name for name in names), words


def test_every_problem_is_a_map_of_its_states_whose_samples_are_independent(suite):
    for problem in suite:
        fz = problem.f(problem.z0, problem.x, problem.w)
        assert fz.shape == problem.z0.shape, problem.name
        assert fz.dtype == problem.z0.dtype, problem.name
        last = problem.sample(len(fz) - 1)
        alone = last.f(last.z0, last.x, last.w)
        # Other shapes may round otherwise, by a few units in the last place.
        tolerance = 8 * float(jnp.finfo(fz.dtype).eps)
        np.testing.assert_allclose(np.float64(alone[0]), np.float64(fz[-1]), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("matrix", "radius"), [("general", 0.9), ("non_normal", 0.9), ("rotation", 0.9)])
def test_linear_maps_have_the_spectral_radius_of_their_name(x64, matrix, radius):
    values = np.linalg.eigvals(np.asarray(getattr(problems, matrix)(radius)))
    assert np.abs(values).max() == pytest.approx(radius, rel=1e-8)


def test_our_solvers_are_counted_and_their_residual_recomputed(x64):
    forward = solvers.run_ours(halving(), deq_jax.forward_iteration)
    assert forward.evaluations == [20, 20]  # 2^-19 / (2 - 2^-19) is the first at most 1e-6
    np.testing.assert_allclose(forward.residual, 2.0**-19 / (2 - 2.0**-19), rtol=1e-9)
    assert forward.solved == [True, True]
    assert forward.status == ["CONVERGED", "CONVERGED"]


def test_an_unfinished_solve_is_not_solved(x64):
    outcome = solvers.run_ours(halving(max_iter=5), deq_jax.forward_iteration)
    assert outcome.solved == [False, False]
    assert outcome.status == ["MAX_ITER", "MAX_ITER"]


@pytest.mark.parametrize("name", solvers.SCIPY)
def test_scipy_is_counted_by_evaluations_and_stopped_when_it_has_the_answer(x64, name):
    outcome = solvers.run_scipy(halving(), getattr(scipy.optimize, name))
    assert outcome.solved == [True, True]
    assert max(outcome.residual) <= 1e-6
    assert 2 <= max(outcome.evaluations) < 50


def test_scipy_has_no_more_evaluations_than_we_have(x64):
    outcome = solvers.run_scipy(halving(max_iter=2), scipy.optimize.broyden1)
    assert outcome.solved == [False, False]
    assert outcome.evaluations == [2, 2]


def test_promises_hold_where_they_are_kept():
    summary = solvers.summarise([row("a", (12, True), (10, True)), row("b", (5, True), (100, False))])
    assert summary.slower == summary.unsolved == []
    assert summary.median_of_solved == 1.2
    assert summary.median_of_all == pytest.approx((1.2 + 0.05) / 2)  # an unsolved run counts as max_iter


def test_broken_promises_are_named():
    rows = [
        row("slow", (13, True), (10, True)),
        row("lost", (100, False), (10, True)),
        row("hard", (100, False), (100, False)),
        row("hopeless", (100, False), (100, False), scipy=(100, False)),
    ]
    summary = solvers.summarise(rows)
    assert summary.slower == ["slow [0]: 13 against 10", "lost [0]: 100, unsolved against 10"]
    assert [line.split(" [")[0] for line in summary.unsolved] == ["lost", "hard"]
    report = solvers.report(summary, rows)
    assert "slow [0]: 13 against 10" in report
    assert "is broken" in report


def test_the_table_says_what_is_unsolved():
    lines = solvers.table([row("a", (12, True), (100, False))]).splitlines()
    assert lines[-1].split() == ["a", "float64", "0.001", "100", "–", "12.0", "9.0"]


def test_json_and_picture_are_written(tmp_path):
    rows = [row("a", (12, True), (10, True)), row("b", (5, True), (100, False))]
    rows[1].outcomes["anderson"].residual[0] = float("nan")
    solvers.write(rows, tmp_path / "new")

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads((tmp_path / "new/solvers.json").read_text(), parse_constant=refuse)
    assert content["rows"][0]["outcomes"]["anderson"]["evaluations"] == [12]
    assert content["rows"][1]["outcomes"]["anderson"]["residual"] == [None]
    assert content["environment"]["scipy"]
    assert content["summary"]["slower"] == []
    assert (tmp_path / "new/solvers.png").read_bytes().startswith(b"\x89PNG")
