import dataclasses
import json

import numpy as np
import pytest

from benchmarks.reasoning import __main__ as command
from benchmarks.reasoning import contestants as entries
from benchmarks.reasoning import page, plan, worker
from benchmarks.reasoning.calibration import area, calibrated
from benchmarks.reasoning.contestants import LAYERS, PRESETS, QUESTIONS, Questions, configured, contestants
from benchmarks.reasoning.measures import best_of, cosine
from benchmarks.reasoning.tables import tables
from benchmarks.report import sections
from deq_jax.tasks.puzzles.answers import Answers
from tests.inverse import tiny as tiny_blur
from tests.puzzles import tiny


def test_a_threshold_is_chosen_on_one_half_and_judged_on_the_other():
    """Of the first half it refuses one right answer in twenty; what that is worth, the second half tells."""
    chosen_right, chosen_wrong = [*[1e-4] * 18, 1e-3, 1e-2], [5.0] * 4
    judged_right, judged_wrong = [*[1e-4] * 15, *[2e-3] * 5], [1e-2, 1e-2, 1e-2, 1e-4]
    residual, exact = np.empty(48), np.empty(48, bool)
    residual[::2], exact[::2] = [*chosen_right, *chosen_wrong], [True] * 20 + [False] * 4
    residual[1::2], exact[1::2] = [*judged_right, *judged_wrong], [True] * 20 + [False] * 4
    found = calibrated(residual, exact, 1e-5)
    assert found.threshold == 1e-3
    assert (found.found, found.refused) == (3 / 4, 5 / 20)
    assert (found.wrong, found.right) == (8, 40)
    assert calibrated(residual, exact, 3e-3).refused == 0  # all that has converged is kept
    assert calibrated([1, 2, 3, 4], [True] * 4, 1e-5) is None
    assert calibrated([1, 2, 3, 4], [True, False, True, False], 1e-5) is None  # a half each


def test_the_area_is_the_share_of_pairs_in_order():
    assert area(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1
    assert area(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 0
    assert area(np.array([1.0, 2.0]), np.array([2.0])) == 3 / 4  # a tie counts half


def test_of_several_starts_the_one_of_the_lowest_residual_counts():
    residual = np.array([[1, 3, 1], [2, 1, 2]])
    exact = np.array([[True, False, False], [False, True, True]])
    np.testing.assert_array_equal(best_of(residual, exact), [True, True, False])


def test_alignment_is_of_the_states_directions():
    states = np.array([[1.0, 0, 0], [1.0, 0, 0]]), np.array([[2.0, 0, 0], [0, 1.0, 0]])
    one, other = (Answers(None, None, None, None, z) for z in states)
    assert cosine(one, other) == 0.5


@pytest.mark.parametrize("task", QUESTIONS)
def test_contestants_have_as_many_parameters(task, tmp_path):
    """Where a cell is one, it is the same; where layers are several, they are narrower."""
    configs = {name: configured(task, name, 3, tmp_path) for name in contestants(task)}
    assert len({config.out for config in configs.values()}) == len(configs)
    preset = PRESETS[task]()
    assert configs["equilibrium"].model == preset.model
    if task == "deblur":
        assert configs["tied, unrolled"].model == dataclasses.replace(preset.model, kind="unrolled")
        return
    of, unrolled = preset.model, configs["tied, unrolled"]
    assert unrolled.model.steps == of.segments * of.steps
    counts = {name: entries.parameters_of(config) for name, config in configs.items()}
    assert len({counts[name] for name in counts if name != LAYERS}) == 1
    assert counts[LAYERS] == pytest.approx(counts["equilibrium"], rel=0.03)
    assert QUESTIONS[task].difficulties[0] == preset.data.difficulty


def test_steps_are_as_many_as_were_asked_for(tmp_path):
    for steps in (2, 1600):
        config = configured("maze", LAYERS, 0, tmp_path, steps=steps)
        assert config.epochs * (config.data.epoch // config.batch_size) == steps


def test_a_plan_gives_all_the_same_time_and_keeps_to_it(tmp_path):
    def timed(name):
        return {"parameters": 7, "seconds": 0.5 if name == "equilibrium" else 0.1}

    made = plan.plan_for("deblur", 2.0, tmp_path, timed)
    assert [trial["steps"] for trial in made["contestants"].values()] == [240, 1200]
    assert plan.plan_for("deblur", None, tmp_path, None) == made
    with pytest.raises(SystemExit, match=r"plans 2 minutes, and --minutes is 3"):
        plan.plan_for("deblur", 3.0, tmp_path, None)
    own = plan.plan_for("deblur", None, tmp_path / "other", timed)
    assert own["minutes"] == pytest.approx(plan.preset_steps("deblur") * 0.5 / 60)


def here(out, task, contestant, seed, steps=None):
    """The worker, in this process."""
    worker.main([str(out), task, contestant, str(seed), *([] if steps is None else ["--steps", str(steps)])])


@pytest.fixture
def tiny_tasks(monkeypatch, tmp_path):
    """Strings of a few bits and small patches, with networks that learn nothing in a few steps."""
    unrolled = dataclasses.replace(tiny_blur(tmp_path).model, kind="unrolled", steps=6)
    monkeypatch.setitem(entries.PRESETS, "prefix-sums", lambda: tiny(tmp_path, epochs=1))
    monkeypatch.setitem(entries.PRESETS, "deblur", lambda: tiny_blur(tmp_path))
    monkeypatch.setitem(entries.INVERSE, "deblur-unrolled", lambda: tiny_blur(tmp_path, model=unrolled))
    monkeypatch.setitem(entries.QUESTIONS, "prefix-sums", Questions((6, 12), (3, 6), 8))
    monkeypatch.setitem(entries.QUESTIONS, "deblur", Questions((), (3, 6, 60), 4))
    monkeypatch.setattr(worker, "TRIAL", 2)
    monkeypatch.setattr(entries, "DEPTH", 2)
    # A time of two steps, whatever the machine.
    monkeypatch.setattr(worker, "seconds_a_step", lambda run: 30.0)


@pytest.mark.long
def test_the_command_trains_measures_prints_and_goes_on(tiny_tasks, tmp_path, monkeypatch, capsys):
    asked = []

    def counted(*arguments):
        asked.append(arguments)
        here(*arguments)

    monkeypatch.setattr(command.compared, "__defaults__", (counted,))
    names = ("equilibrium", "tied, unrolled", LAYERS)
    monkeypatch.setattr(command, "contestants", lambda task: names)
    out = tmp_path / "out"
    out.mkdir()
    trials = {name: {"parameters": 7, "seconds": 30.0, "steps": 2} for name in names}
    (out / "prefix-sums-plan.json").write_text(json.dumps({"minutes": 1, "contestants": trials}))
    arguments = ["prefix-sums", "--seeds", "0", "--minutes", "1", "--out", str(out)]
    command.main(arguments)
    printed = capsys.readouterr().out
    rows = json.loads((out / "prefix-sums.json").read_text())
    assert [row["contestant"] for row in rows] == list(names)
    assert {row["steps"] for row in rows} == {2}
    equilibrium, layers = rows[0], rows[-1]
    assert equilibrium["problems"].keys() == {"6", "12"}
    told = equilibrium["problems"]["12"]["6"]
    assert {len(values) for values in told.values()} == {8}
    assert max(told["evaluations"]) <= 6
    assert layers["problems"]["12"].keys() == {"6"}
    assert -1 <= equilibrium["independence"]["12"]["alignment"] <= 1
    assert equilibrium["restarts"]["any"] >= equilibrium["restarts"]["zeros"]
    assert tables("prefix-sums", rows) in printed
    assert "| layers of their own |" in printed
    for picture in ("reasoning-prefix-sums.png", "reasoning-prefix-sums-trust.png"):
        assert (out / picture).stat().st_size > 5_000
        (out / picture).unlink()
    trained = len(asked)
    (out / "prefix-sums-tied-unrolled-0.json").unlink()
    command.main(arguments)
    assert asked[trained:] == [(out, "prefix-sums", "tied, unrolled", 0, 2)]  # measured again, and nothing else
    command.main([*arguments, "--redraw"])
    assert len(asked) == trained + 1
    assert (out / "reasoning-prefix-sums.png").exists()
    with pytest.raises(SystemExit, match="run the comparison first"):
        command.main(["maze", "--redraw", "--out", str(out)])


@pytest.mark.long
def test_a_blur_is_undone_with_other_numbers_of_evaluations(tiny_tasks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.compared, "__defaults__", (here,))
    monkeypatch.setattr(command, "ROOT", tmp_path)
    (tmp_path / "docs/images").mkdir(parents=True)
    out = tmp_path / "out"
    command.main(["deblur", "--seeds", "0", "--minutes", "1", "--out", str(out), "--results"])
    rows = json.loads((out / "deblur.json").read_text())
    assert [row["contestant"] for row in rows] == ["equilibrium", "tied, unrolled"]
    for row in rows:
        assert row["psnr"].keys() == {"3", "6", "60"}
        assert row["patches"].keys() == {"clean", "measured", "6", "60"}
        assert np.shape(row["patches"]["60"]) == (8, 8)
    # Two steps of training change little: both are the gradient steps that the cell begins as. A solve returns a state
    # that it has measured, which is one evaluation before where the unrolled network is.
    assert rows[0]["plain"]["3"] < rows[1]["psnr"]["3"] < rows[0]["plain"]["6"] < rows[1]["psnr"]["6"]
    assert "lost after ten times" in capsys.readouterr().out
    results = (tmp_path / "RESULTS.md").read_text()
    assert "](docs/images/deblurring.png)" in results
    assert (tmp_path / "docs/images/deblurring.png").stat().st_size > 5_000


def test_a_section_is_replaced_and_the_rest_of_the_page_stays(tmp_path):
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\nof runs\n")
    page.put(results, "maze", "one", [tmp_path / "docs/reasoning-maze.png"])
    page.put(results, "sudoku", "two", [])
    page.put(results, "maze", "three", [])
    text = results.read_text()
    assert text.startswith("# Results\n\nof runs\n")
    assert "one" not in text
    assert text.index("three") < text.index("two")
    assert [section in text for section in sections.kept(results)] == [True, True]
    assert sections.kept(tmp_path / "missing.md") == []
