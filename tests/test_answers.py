"""What a run on mazes answers, and what refusing some of its answers is worth."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from deq_jax import evaluate, predict, training
from deq_jax.solution import Solution
from deq_jax.tasks.abstention import abstaining, told
from deq_jax.tasks.presets import train
from deq_jax.tasks.puzzles.answers import answers, network
from deq_jax.tasks.puzzles.config import DataConfig
from deq_jax.tasks.puzzles.problems import boards, mazes, prefix_sums
from deq_jax.tasks.puzzles.task import open_task
from deq_jax.training.disk.folder import claim
from deq_jax.training.task import Outcome
from tests.puzzles import tiny
from tests.runs import records, without_times

# One worker runs them all: they share one run and its compiled programs.
pytestmark = pytest.mark.xdist_group("puzzles")

MAZE = "S.#\n#.#\n#.E\n"
SEVERAL = "S..\n.#.\n..E\n"
NONE = "S#.\n##.\n..E\n"


def tiny_maze(out, **changes):
    model = {"before": 3, **changes.pop("model", {})}
    return tiny(out, model=model, data=DataConfig("maze", 5, epoch=16, test=4), **changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Stopped after a step, and continued."""
    out = tmp_path_factory.mktemp("runs") / "mazes"
    for steps in (1, None):
        assert train(tiny_maze(out, max_steps=steps), is_quiet=True) == 0
    return out


@pytest.mark.long
def test_a_stopped_run_on_mazes_ends_as_one_that_went_through(run, tmp_path):
    assert train(tiny_maze(tmp_path), is_quiet=True) == 0
    once, twice = ([line for line in without_times(records(out)) if line["kind"] == "train"] for out in (tmp_path, run))
    assert {line["step"]: line for line in twice} == {line["step"]: line for line in once}


def test_answers_are_those_of_the_model_whatever_the_batch(run):
    config = tiny_maze(run)
    clues = open_task(config, ["test"]).data.splits["test"].clues
    found = answers(network(run, config), clues, batch_size=1)
    logits, solution = training.load(run).model(clues)
    np.testing.assert_array_equal(found.answer, np.asarray(logits).argmax(-1))
    np.testing.assert_allclose(found.residual, solution.residual, rtol=1e-3)
    np.testing.assert_array_equal(found.evaluations, solution.iterations)
    assert found.state.shape == (4, 5, 5, 4)
    started = answers(network(run, config), clues, batch_size=3, z0=found.state + 1)
    assert (abs(started.state - found.state).max((1, 2, 3)) > 0).any()


@pytest.mark.long
def test_predict_says_of_every_puzzle_whether_its_answer_is_to_be_believed(run, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text(f"{MAZE}\n{MAZE[::-1].strip()}\n")
    arguments = [str(run), str(tmp_path / "mine.txt"), "--max-iter", "4"]
    predict.main([*arguments, "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["problem"] for row in rows] == [1, 2]
    for row in rows:
        assert row["evaluations"] <= 4
        assert row["refused"] == (row["status"] != "CONVERGED")
        assert [len(line) for line in row["answer"]] == [3, 3, 3]
    predict.main([*arguments, "--abstain", "1e9"])
    printed = capsys.readouterr().out
    assert printed.count(": kept; ") == 2
    assert "\n  " + rows[0]["answer"][1] in printed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NONE, "problem 1: the maze has no solution"),
        (SEVERAL, "problem 1: the maze has several solutions"),
        (f"{MAZE}\n{NONE}", "problem 2: the maze has no solution"),
        (f"{MAZE}\nS.E\n", "problem 2 is 1 × 3, the first one 3 × 3"),
        ("0101\n", "holds 0 1; mazes are written with"),
        ("", "holds no problem"),
    ],
)
def test_predict_names_what_is_no_puzzle(run, tmp_path, capsys, text, said):
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(SystemExit) as end:
        predict.main([str(run), str(tmp_path / "mine.txt")])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_boards_of_another_size_or_without_one_solution_are_named(tmp_path, capsys):
    out = tmp_path / "boards"
    config = tiny(out, data=DataConfig("sudoku", 6, side=4, epoch=8, test=4), epochs=1, max_steps=1)
    assert train(config, is_quiet=True) == 0
    for board, said in (
        (["1234", "3412", "2143", "432."], None),
        (["1..."] * 4, "no solution"),
        (["....", "....", "....", "...."], "several solutions"),
        (["." * 6] * 6, "several solutions"),
        (["123456", "456123", "234561", "561234", "345612", "61234."], "5 6; 4×4 boards are written with"),
        (["123", "312", "231"], "are no Sudoku"),
    ):
        (tmp_path / "mine.txt").write_text("\n".join(board))
        capsys.readouterr()
        if said is None:
            predict.main([str(out), str(tmp_path / "mine.txt")])
            assert capsys.readouterr().out.count("\n") == 5
            continue
        with pytest.raises(SystemExit):
            predict.main([str(out), str(tmp_path / "mine.txt")])
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", [predict, evaluate])
def test_abstaining_goes_with_puzzles_and_the_like(tmp_path, capsys, command):
    from deq_jax.tasks.images.task import OPENER
    from tests.runs import tiny as tiny_images

    claim(tmp_path, tiny_images(tmp_path), OPENER)
    with pytest.raises(SystemExit):
        command.main([str(tmp_path), *(["x.png"] if command is predict else []), "--abstain", "0.1"])
    assert "go with runs on puzzles" in capsys.readouterr().err


def test_evaluate_tells_what_refusing_is_worth(run, capsys):
    for threshold, kept in ((1e9, 1.0), (1e-12, 0.0)):
        evaluate.main([str(run), "--abstain", str(threshold)])
        result = json.loads(capsys.readouterr().out)
        assert (result["kept"], result["abstain"]) == (kept, threshold)
        assert result["kept_accuracy"] == (pytest.approx(result["accuracy"]) if kept else None)
    evaluate.main([str(run), "--beta", "0.5"])
    assert json.loads(capsys.readouterr().out)["forward_residual"] != result["forward_residual"]
    with pytest.raises(SystemExit):
        evaluate.main([str(run), "--abstain", "0"])
    assert "--abstain must be a positive residual, but is 0" in capsys.readouterr().err


def test_shares_of_refused_answers():
    """Of five answers three are right, and a threshold of 1 keeps two of these and one of the wrong ones."""
    exact = jnp.array([1.0, 1, 1, 0, 0])
    residual = jnp.array([0.1, 1.0, 2.0, 0.5, jnp.nan])
    solution = Solution(exact, residual, jnp.zeros(5, jnp.int32), jnp.zeros(5, jnp.int8))
    outcome = Outcome(1 - exact, solution, metrics={"exact": exact, "accuracy": 0.5 + 0.5 * exact})
    counted = abstaining(lambda model, examples: outcome, 1.0)(None, None)
    shares = told({name: float(value.mean()) for name, value in counted.metrics.items()})
    assert shares == pytest.approx(
        {
            "exact": 3 / 5,
            "accuracy": 4 / 5,
            "kept": 3 / 5,
            "kept_exact": 2 / 3,
            "kept_accuracy": 2.5 / 3,
            "refused_wrong": 1 / 2,
            "refused_right": 1 / 3,
        }
    )
    with pytest.raises(training.UserError, match="solves for none"):
        abstaining(lambda model, examples: Outcome(exact), 1.0)(None, None)


def test_answers_are_written_as_their_puzzles_are():
    assert prefix_sums(4).write(np.array([[1, 1, 0, 1]]), np.array([[1, 0, 0, 1]])) == ["1001"]
    assert boards(4, 6).write(np.array([[0, 0]]), np.array([[0, 3]])) == ["14"]
    clues = np.array([[2, 1, 0], [0, 1, 3], [0, 1, 0]])
    assert mazes(3).write(clues, np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0]])) == ["S*#", "#*E", "#.#"]
