"""The training benchmark's own logic; no peer is needed."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.environments import own
from benchmarks.training import __main__ as command
from benchmarks.training import batches, exchange, reference, results, scaling, startup
from benchmarks.training.exchange import Problem
from benchmarks.training.processes import ENTRIES, Entry, FailedError, Process
from benchmarks.training.rounds import Measured, compete

TINY = Problem(batch=4, image=(8, 8, 3), channels=4, inner_channels=4, num_groups=2, pool=4)


def row(name, seconds, *, error=0.1, residual=5e-3, peak=500.0, weights="initial"):
    accuracy = reference.Accuracy(residual, residual, residual, residual, error, error)._asdict()
    return Measured(name, "", weights, {}, 1.0, seconds, [9, 9], [6, 8], 300.0, peak, accuracy)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny problem on digits, and what is in it."""
    folder = tmp_path_factory.mktemp("exchange")
    weights = {"initial": batches.draw_weights(TINY), "2 steps": batches.trained_weights(TINY, 2, folder=folder)}
    exchange.write(folder, TINY, weights, *batches.draw_batches(TINY, 2))
    return folder


def test_the_exchange_returns_what_was_written(tiny):
    problem, weights, images, labels = exchange.read(tiny)
    assert problem == TINY
    drawn = batches.draw_weights(TINY)
    assert weights["initial"].keys() == drawn.keys()
    assert all(np.array_equal(weights["initial"][name], drawn[name]) for name in drawn)
    assert (images.shape, labels.shape) == ((2, 4, 8, 8, 3), (2, 4))


def test_the_model_drawn_at_the_default_size_is_the_chapters():
    assert sum(array.size for array in batches.draw_weights(Problem()).values()) == 64_842


def test_weights_survive_the_round_trip_through_pytorchs_layout(tiny):
    weights = exchange.read(tiny)[1]["initial"]
    there = exchange.to_torch(weights, TINY)
    assert there["cell.conv1.weight"].shape == (4, 4, 3, 3)
    assert there["head.weight"].shape == (10, 16)
    back = exchange.from_torch(there, TINY, weights)
    assert all(np.array_equal(back[name], weights[name]) for name in weights)


def test_the_head_means_the_same_in_both_layouts(tiny):
    # A pooled image that is not square tells height from width.
    problem = dataclasses.replace(TINY, image=(8, 12, 3))
    kernel = np.random.default_rng(0).normal(size=(2 * 3 * 4, 10))
    pooled = np.random.default_rng(1).normal(size=(5, 2, 3, 4))
    ours = pooled.reshape(5, -1) @ kernel
    theirs = (
        exchange.channels_first(pooled).reshape(5, -1)
        @ exchange.to_torch({"head.kernel": kernel}, problem)["head.weight"].T
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("deq", "cell", "conv1", "kernel"), "cell.conv1.kernel"),
        (("deq", "deq", "cell", "cell", "conv1", "kernel"), "cell.conv1.kernel"),
        (("deq", "adjoint"), "adjoint"),
        (("stem", "bias"), "stem.bias"),
    ],
)
def test_a_parameter_has_one_name_whatever_its_cell_is_wrapped_in(path, name):
    assert exchange.common_name(path) == name


def test_a_digit_is_enlarged_by_repeating_its_pixels():
    digit = np.arange(4).reshape(2, 2, 1)
    large = batches.enlarge(digit, (4, 4, 3))
    assert large[:, :, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert np.array_equal(large[..., 0], large[..., 2])
    with pytest.raises(ValueError, match="do not repeat"):
        batches.enlarge(digit, (5, 4, 3))


def test_the_table_has_medians_ranges_and_ratios():
    table = results.table([row("chapter", [6.0, 7.0, 9.0]), row("deq_jax", [2.0, 2.5, 1.0])])
    chapter = next(line for line in table.splitlines() if line.startswith("chapter"))
    assert "7.00 (6.00–9.00)" in chapter
    assert "3.50" in chapter
    assert "6 → 8" in chapter


def test_the_table_does_without_deq_jax():
    assert "–" in results.table([row("chapter", [6.0])])
    assert results.goals([row("chapter", [6.0])]) == []


def test_goals_are_met_or_missed_by_their_figures():
    ours = row("deq_jax", [2.0], error=0.2, peak=400.0)
    lines = results.goals(
        [ours, row("chapter", [7.0]), row("torchdeq", [5.0]), row("backpropagation", [9.0], peak=900)]
    )
    assert lines[0] == "met: 3.5 times as fast as chapter; the goal is 3"
    assert lines[1] == "MISSED: 2.5 times as fast as torchdeq; the goal is 3"
    assert sum(line.startswith("MISSED: gradient error") for line in lines) == 2
    # 100 MB against 600 MB on top of the process at rest.
    assert lines[-1].startswith("met: 0.17 of the memory")


def test_a_report_is_written_and_names_who_was_skipped(tmp_path, capsys):
    content = {"date": "2030-01-01", "cores": 2, "data": "digits", "steps": 1, "problem": {"batch": 4}}
    content |= {"goals": {"initial": [], "500 steps": ["met: something"]}, "skipped": {"torchdeq": "no wheel"}}
    command.report([row("chapter", [6.0]), row("deq_jax", [2.0], weights="500 steps")], content, tmp_path)
    printed = capsys.readouterr().out
    assert "skipped torchdeq: no wheel" in printed
    assert printed.index("chapter") < printed.index("Weights: 500 steps") < printed.index("met: something")
    assert json.loads((tmp_path / "training.json").read_text())["contestants"][1]["median_seconds"] == 2.0
    assert (tmp_path / "training.png").stat().st_size > 5_000


@pytest.mark.long
def test_deq_jax_runs_two_steps_and_a_broken_contestant_is_skipped(tiny):
    entries = [Entry("broken", "not_there", "own", ""), *(entry for entry in ENTRIES if entry.name == "deq_jax")]
    runs, failed = compete(entries, {"own": own()}, tiny, weights=["2 steps", "initial"], steps=2, limit=120.0)
    assert "not_there" in failed["broken"]
    assert [(run.measured.weights, len(run.measured.step_seconds)) for run in runs] == [("2 steps", 2), ("initial", 2)]
    problem, weights, images, labels = exchange.read(tiny)
    assert not np.array_equal(weights["initial"]["cell.conv1.kernel"], weights["2 steps"]["cell.conv1.kernel"])
    assert not np.array_equal(runs[0].arrays["z"], runs[1].arrays["z"])
    measured, arrays = runs[1]
    truth = reference.exact_gradient(problem, weights["initial"], images[0], labels[0])
    assert truth.residual <= 1e-10
    accuracy = reference.accuracy(problem, weights["initial"], images[0], labels[0], truth, arrays)
    # The contestant's own tolerance is 1e-2, in float32; a wrong cell, batch or layout gives errors near 1.
    assert 0 < accuracy.residual_worst <= 1.01e-2
    assert 0 < accuracy.adjoint_worst <= 1.01e-2
    assert 0 < accuracy.gradient_error < 0.3
    # Two evaluations at least to converge, two more to linearise and differentiate.
    assert 3 <= measured.forward[0] <= 27
    assert 3 <= measured.backward[0] <= 27


def test_a_silent_contestant_is_out_of_time(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    silent = object.__new__(Process)
    silent.process, silent.limit, silent.log = process, 0.2, tmp_path / "log"
    with silent, pytest.raises(FailedError, match="no answer within"):
        silent.ask(do="start")


def test_one_that_is_out_does_not_go_on_beside_the_others(tmp_path, monkeypatch):
    ended = []

    class Silent:
        def __init__(self, entry, *_, **__):
            self.name = entry.name

        def ask(self, do, **_):
            if do == "start":
                return {"first_step_seconds": 0.1}
            raise FailedError("no answer within 1 s")

        def end(self):
            ended.append(self.name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr("benchmarks.training.rounds.Process", Silent)
    entry = ENTRIES[0]
    measured, failed = compete([entry], {entry.environment: sys.executable}, tmp_path, steps=2, limit=1)
    assert (measured, failed) == ([], {entry.name: "no answer within 1 s"})
    assert ended == [entry.name]


@pytest.mark.long
def test_scaling_repeats_the_smallest_batch(tmp_path, capsys):
    scaling.main(sizes=(1, 2), steps=1, out=tmp_path)
    found = json.loads((tmp_path / "training_scaling.json").read_text())
    assert found["ms_an_image"].keys() == {"1", "2"}
    assert all(cost > 0 for cost in found["ms_an_image"].values())
    assert "ms an image" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="3 images are no multiple of 2"):
        scaling.build(3, 2, None)


def test_the_library_is_imported_in_a_second():
    assert min(startup._seconds(startup.IMPORT) for _ in range(3)) < 1
