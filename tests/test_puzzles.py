import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deq_jax import evaluate, training
from deq_jax.tasks.presets import PRESETS, train
from deq_jax.tasks.puzzles.config import DataConfig, ModelConfig
from deq_jax.tasks.puzzles.frames import frames, picture, strip
from deq_jax.tasks.puzzles.model import build_model
from deq_jax.tasks.puzzles.task import evaluated, kind_of, learned, open_task
from deq_jax.training.steps.solving import build_adjoint, build_solver
from tests.puzzles import tiny
from tests.runs import records, without_times

# One worker runs them all: they share one run and its compiled programs.
pytestmark = pytest.mark.xdist_group("puzzles")


def built(config):
    kind = kind_of(config.data)
    solver, adjoint = build_solver(config.solver), build_adjoint(config.adjoint, config.solver)
    return build_model(config, kind, solver, adjoint, nnx.Rngs(0))


def problems(config):
    return open_task(config, ["test"]).data.splits["test"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "strings"
    assert train(tiny(out), is_quiet=True) == 0
    return out


@pytest.mark.long
def test_a_stopped_run_ends_as_one_that_went_through(run, tmp_path):
    assert train(tiny(tmp_path, max_steps=3), is_quiet=True) == 0
    assert train(tiny(tmp_path), is_quiet=True) == 0
    measured = {line["step"]: line for line in without_times(records(tmp_path)) if line["kind"] == "train"}
    assert list(measured.values()) == [line for line in without_times(records(run)) if line["kind"] == "train"]


def test_a_run_reports_how_many_problems_are_wholly_right(run):
    first, *_, last = records(run)
    assert first["forward_iterations"] == 6  # two segments of three
    assert last["kind"] == "eval"
    assert 0 <= last["exact"] <= last["accuracy"] <= 1


def test_it_is_evaluated_at_any_difficulty_and_with_any_number_of_evaluations(run, capsys):
    for arguments, data, at_most in (([], "6 bits", 6), (["--difficulty", "20", "--max-iter", "50"], "20 bits", 50)):
        evaluate.main([str(run), *arguments])
        result = json.loads(capsys.readouterr().out)
        assert result["data"] == f"prefix-sums of {data}"
        assert (result["count"], result["step"], result["max_iter"]) == (12, 4, at_most)
        assert 0 <= result["exact"] <= result["accuracy"] <= 1
        assert result["forward_iterations"] <= at_most


def test_it_is_evaluated_on_problems_of_ones_own(run, tmp_path, capsys):
    path = tmp_path / "mine.txt"
    path.write_text("0110100101\n\n1111100000\n")
    evaluate.main([str(run), "--problems", str(path)])
    result = json.loads(capsys.readouterr().out)
    assert (result["count"], result["data"]) == (2, "prefix-sums of mine.txt")
    with pytest.raises(SystemExit):
        evaluate.main([str(run), "--problems", str(path), "--difficulty", "10"])
    assert "exclude each other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--difficulty", "1"], "a string of 1 bits cannot be generated"),
        (["--split", "train"], "go with runs on images"),
        (["--max-iter", "1"], "--max-iter must be at least 2"),
        (["--checkpoint", "7"], "no checkpoint of step 7"),
    ],
)
def test_mistakes_are_told_in_a_line(run, capsys, arguments, said):
    with pytest.raises(SystemExit) as end:
        evaluate.main([str(run), *arguments])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert len(printed.err.splitlines()) <= 2


def test_it_is_loaded_and_solves_problems_of_another_size(run):
    model = training.load(run).model
    logits, solution = model(np.zeros((3, 1, 11), np.int8))
    assert logits.shape == (3, 1, 11, 2)
    assert solution.residual.shape == (3,)


def test_a_segment_is_differentiated_through_and_what_is_before_it_is_not(tmp_path):
    """The gradient is that of the last segment alone, from the state that was carried to it."""
    config = tiny(tmp_path, model={"noise": 0.0, "start": 0.0})
    model, batch = built(config), problems(config)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def last_loss(params, segments):
        model = nnx.merge(graph, params, rest, copy=True)
        model.body.segments = segments
        return learned(model, batch, None).loss.mean()

    def from_where_it_is(params, z):
        model = nnx.merge(graph, params, rest, copy=True)
        x = model.inject(batch.clues)
        for _ in range(config.model.steps):
            z = model.body.cell(z, x)
        logits = model.head(z)
        log_p = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(log_p, batch.answer[..., None].astype(int), -1).mean()

    x = model.inject(batch.clues)
    z = model.body.cell.initial_state(x)
    for _ in range(config.model.steps):
        z = model.body.cell(z, x)
    expected = jax.jit(jax.grad(from_where_it_is))(params, z)
    found = jax.jit(jax.grad(last_loss), static_argnums=1)(params, 2)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_all_segments_count_in_what_is_made_small(tmp_path):
    config = tiny(tmp_path, model={"noise": 0.0, "start": 0.0})
    model, batch = built(config), problems(config)
    outcome = learned(model, batch, None)
    states, _ = model.body.learn(model.inject(batch.clues), None)
    assert len(states) == 2
    model.body.segments = 1
    first = learned(model, batch, None).loss
    np.testing.assert_allclose(outcome.objective, (first + outcome.loss) / 2, rtol=1e-5)


def test_half_of_the_samples_start_at_random(tmp_path):
    started, plain = (built(tiny(tmp_path, model={"start": start, "noise": 0.0})) for start in (1.0, 0.0))
    x = plain.inject(problems(tiny(tmp_path)).clues)
    first, other = plain.body.learn(x, None)[0][0], started.body.learn(x, None)[0][0]
    np.testing.assert_allclose(other[::2], first[::2], rtol=1e-5, atol=1e-6)
    assert (abs(other - first).max((1, 2, 3))[1::2] > 1e-3).all()


def test_noise_comes_before_every_evaluation_and_is_another_in_every_segment(tmp_path):
    """The states of two segments that start alike differ, as nothing else than noise could make them."""
    noisy = built(tiny(tmp_path, model={"start": 0.0, "noise": 1.0}))
    x = noisy.inject(problems(tiny(tmp_path)).clues)
    z = noisy.body.cell.initial_state(x)
    one, other = noisy.body._segment(z, x), noisy.body._segment(z, x)
    assert (abs(one - other).max((1, 2, 3)) > 1e-3).all()
    assert (noisy.body.solve(x).value == noisy.body.solve(x).value).all()  # and none in an evaluation


@pytest.mark.parametrize("kind", ["equilibrium", "unrolled", "without-recall", "layers"])
def test_every_kind_of_network_learns(tmp_path, kind):
    """A step against the gradient makes the loss smaller."""
    config = tiny(tmp_path, model={"kind": kind, "start": 0.0, "noise": 0.0})
    model, batch = built(config), problems(config)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    value = jax.jit(
        jax.value_and_grad(lambda params: learned(nnx.merge(graph, params, rest, copy=True), batch, None).loss.mean())
    )
    before, gradient = value(params)
    after, _ = value(jax.tree.map(lambda p, g: p - 1e-2 * g, params, gradient))
    assert after < before


def test_an_unrolled_network_is_its_cell_so_many_times(tmp_path):
    config = tiny(tmp_path, model={"kind": "unrolled"})
    model, batch = built(config), problems(config)
    x = model.inject(batch.clues)
    z = model.body.cell.initial_state(x)
    for _ in range(3):
        z = model.body.cell(z, x)
    states, solution = model.body.learn(x, None)
    np.testing.assert_allclose(states[0], z, rtol=1e-5, atol=1e-6)
    assert (solution.iterations == 3).all()
    assert (model.body.solve(x).iterations == 6).all()  # those of an evaluation


def test_without_recall_the_problem_is_seen_once(tmp_path):
    config = tiny(tmp_path, model={"kind": "without-recall"})
    model, batch = built(config), problems(config)
    x = model.inject(batch.clues)
    z = model.body.cell(model.body.cell.initial_state(x), x)
    for _ in range(2):
        z = model.body.cell(z, jnp.zeros_like(x))
    np.testing.assert_allclose(model.body.learn(x, None)[0][0], z, rtol=1e-5, atol=1e-6)


def test_an_equilibrium_can_be_learned_by_its_adjoint(tmp_path):
    config = tiny(tmp_path, model={"gradient": "adjoint"})
    outcome = learned(built(config), problems(config), None)
    assert (outcome.solution.iterations <= 6).all()
    np.testing.assert_allclose(outcome.objective, outcome.loss)


@pytest.mark.parametrize(("puzzle", "difficulty"), [("maze", 5), ("sudoku", 6)])
def test_mazes_and_boards_are_answered_place_by_place(tmp_path, puzzle, difficulty):
    config = tiny(tmp_path, data=DataConfig(puzzle, difficulty, side=4, epoch=8, test=4))
    batch = problems(config)
    outcome = evaluated(built(config), batch)
    assert outcome.metrics["exact"].shape == (4,)
    uniform = np.log(4 if puzzle == "sudoku" else 2)
    assert abs(outcome.loss - uniform).max() < uniform


def test_boards_of_another_size_are_refused(tmp_path):
    config = tiny(tmp_path, data=DataConfig("sudoku", 6, side=4, epoch=8, test=4))
    with pytest.raises(training.UserError, match=r"trained on boards of 4×4 places, and cannot take .*\[1, 6, 6\]"):
        built(config)(np.zeros((1, 6, 6), np.int8))


def test_a_setting_that_no_network_can_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        ModelConfig(kernel_size=2)
    with pytest.raises(ValueError, match="segments must be positive"):
        ModelConfig(segments=0)
    with pytest.raises(ValueError, match=r"penalty\.weight needs"):
        tiny(tmp_path, penalty=training.settings.update.PenaltyConfig(weight=1.0))
    with pytest.raises(ValueError, match="seed must not be negative"):
        dataclasses.replace(tiny(tmp_path), seed=-1)


@pytest.mark.parametrize("name", ["prefix-sums", "maze", "sudoku"])
def test_a_preset_is_small(name):
    config = PRESETS[name]()
    params = nnx.state(nnx.eval_shape(lambda: built(config)), nnx.Param)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) < 60_000


def test_frames_show_the_answers_on_the_way_to_the_equilibrium(tmp_path):
    config = tiny(tmp_path, data=DataConfig("maze", 5, epoch=8, test=2))
    model, clues = built(config), problems(config).clues[0]
    shares = frames(model, clues, [1, 3])
    x = model.inject(clues[None])
    z = model.body.cell(model.body.cell.initial_state(x), x)
    np.testing.assert_allclose(shares[0], jax.nn.softmax(model.head(z))[0, ..., 1], rtol=1e-4)
    assert abs(shares[1] - shares[0]).max() > 1e-4
    assert len(strip(clues, shares, [1, 3]).axes) == 2
    image = picture(clues, shares[0])
    assert image.shape == (7, 7, 3)
    assert (image[0] == image[0, 0]).all()  # the outer wall
    with pytest.raises(TypeError, match="frames are of an equilibrium"):
        frames(built(dataclasses.replace(config, model=ModelConfig("layers", layers=1))), clues, [1])
