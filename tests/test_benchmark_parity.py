import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from benchmarks.parity import comparison, our_side
from benchmarks.parity.__main__ import main
from benchmarks.training import batches, exchange
from benchmarks.training.exchange import Problem

CURVES = np.random.default_rng(0).normal(size=(3, 40)).cumsum(1)


def test_equal_curves_have_no_gap_beside_their_spread():
    found = comparison.compare(CURVES, CURVES)
    assert found["gap"] == found["mean_gap"] == 0
    running = comparison.smoothed(CURVES)
    assert running.shape == (3, 40 - comparison.WINDOW + 1)
    np.testing.assert_allclose(running[1, 0], CURVES[1, : comparison.WINDOW].mean())
    assert found["spread"] == pytest.approx(running.std(0, ddof=1).mean())


def test_a_shift_is_the_gap():
    found = comparison.compare(CURVES + 0.25, CURVES)
    assert found["gap"] == pytest.approx(0.25)
    assert found["largest_gap"] == pytest.approx(0.25)
    assert comparison.output_difference(np.array([2.0, 1.0]), np.array([2.0, 1.5])) == 0.25


def test_both_curves_are_drawn(tmp_path):
    comparison.draw(CURVES, CURVES + 1, "title", tmp_path / "parity.png")
    picture = imread(tmp_path / "parity.png")[..., :3]
    for color, strength in ((comparison.OURS, 1.0), (comparison.CHAPTER, 0.55)):
        drawn = 1 - strength * (1 - np.array(to_rgb(color)))  # over white
        assert (np.abs(picture - drawn) < 2 / 255).all(-1).sum() > 300


@pytest.mark.parametrize(
    ("option", "said"), [({"seeds": 1}, "--seeds must be at least 2"), ({"steps": 14}, "--steps must be at least 15")]
)
def test_what_cannot_be_compared_is_refused(option, said):
    with pytest.raises(SystemExit, match=said):
        main(**option)


@pytest.mark.long
def test_our_side_solves_tightly_and_trains_on_the_given_batches(tmp_path):
    problem = Problem(batch=16, image=(8, 8, 1), channels=8, inner_channels=8, num_groups=2, pool=4)
    images, labels = batches.draw_batches(problem, 3)
    exchange.write(tmp_path, problem, {"initial": batches.draw_weights(problem)}, images, labels)
    logits, residual = our_side.first_outputs(tmp_path)
    assert logits.shape == (16, 10)
    assert residual <= 1e-6
    losses = our_side.losses(tmp_path)
    assert losses.shape == (3,)
    # The first loss is that of the first outputs, but for the looser solve of training.
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(16), labels[0]])
    assert losses[0] == pytest.approx(expected, rel=1e-2)
