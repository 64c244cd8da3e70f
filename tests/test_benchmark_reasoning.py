import json

import numpy as np
import pytest

from benchmarks.reasoning import __main__ as command
from benchmarks.reasoning.contestants import CONTESTANTS, PUZZLES, Puzzle, configured
from benchmarks.reasoning.measures import Solved, agreement, best_of, calibrated
from benchmarks.reasoning.tables import tables
from deq_jax.tasks.puzzles.presets import PRESETS
from tests.puzzles import tiny


def solved(exact, residual, answer=None, state=None):
    n = len(exact)
    answer = np.zeros((n, 1, 2)) if answer is None else answer
    state = np.ones((n, 3)) if state is None else state
    return Solved(np.array(exact), np.array(residual), np.full(n, 5), answer, state)


def test_a_threshold_refuses_as_many_wrong_answers_as_it_may():
    exact = [True] * 20 + [False] * 4
    residual = [1e-4] * 18 + [1e-3, 1e-2] + [1e-2, 1e-2, 1e-1, 1e-4]
    found = calibrated(solved(exact, residual))
    assert found.threshold == 1e-3
    assert found.refused == 1 / 20
    assert found.found == 3 / 4
    assert calibrated(solved([True, True], [1, 2])) is None
    assert calibrated(solved([False, False], [1, 2])) is None


def test_of_several_starts_the_one_of_the_lowest_residual_counts():
    one, other = solved([True, False, False], [1, 3, 1]), solved([False, True, True], [2, 1, 2])
    assert best_of([one, other]) == pytest.approx(2 / 3)


def test_agreement_is_of_whole_answers_and_of_the_states_directions():
    answer = np.zeros((2, 1, 2))
    other = answer.copy()
    other[1, 0, 1] = 1
    states = np.array([[1.0, 0, 0], [1.0, 0, 0]]), np.array([[2.0, 0, 0], [0, 1.0, 0]])
    one, two = (solved([True, True], [0, 0], a, z) for a, z in zip((answer, other), states, strict=True))
    assert agreement(one, two) == (0.5, 0.5)


@pytest.mark.parametrize("puzzle", PUZZLES)
def test_contestants_have_as_many_parameters(puzzle, tmp_path):
    """Where a cell is one, it is the same; where layers are several, they are narrower."""
    configs = {name: configured(puzzle, name, 3, tmp_path, None) for name in CONTESTANTS}
    assert len({config.out for config in configs.values()}) == len(configs)
    assert configs["equilibrium"].model == PRESETS[puzzle]().model
    of, layers = configs["equilibrium"].model, configs["layers of their own"].model
    products = of.channels * of.inner_channels
    assert layers.layers * layers.channels * layers.inner_channels == pytest.approx(products, rel=0.15)
    assert configs["tied, unrolled"].model.steps == of.segments * of.steps
    assert puzzle != "sudoku" or PUZZLES[puzzle].harder[0] == PRESETS[puzzle]().data.difficulty


def test_the_command_trains_measures_and_prints(tmp_path, monkeypatch, capsys):
    """On strings of a few bits, with networks that learn nothing in two steps."""
    monkeypatch.setitem(command.PUZZLES, "prefix-sums", Puzzle((6, 12), 12, (3, 6), 20, 8))
    monkeypatch.setattr(
        "benchmarks.reasoning.contestants.PRESETS", {"prefix-sums": lambda: tiny(tmp_path, epochs=1, max_steps=1)}
    )
    arguments = ["x", "prefix-sums", "--seeds", "0", "--contestants", "equilibrium", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    command.main()
    printed = capsys.readouterr().out
    (row,) = json.loads((tmp_path / "prefix-sums.json").read_text())
    assert row["exact"].keys() == {"6", "12"}
    assert row["evaluations"]["12"] <= 20
    assert tables("prefix-sums", [row]) in printed
    assert "| equilibrium |" in printed
    assert (tmp_path / "prefix-sums.png").stat().st_size > 5_000
