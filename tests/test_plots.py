import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import deq_jax
from deq_jax import Solution, Status, plots

SLOPES = jnp.array([[0.5], [0.9], [2.0]])


@pytest.fixture
def sol():
    """Three samples: one converges soon, one runs out of evaluations, one grows until it is no number."""
    return deq_jax.forward_iteration(
        lambda z: SLOPES * z + jnp.where(SLOPES > 1, 1e38, 1), jnp.ones((3, 1)), max_iter=12, trace=True
    )


@pytest.fixture
def ax():
    return Figure().subplots()


def test_the_problem_ends_in_all_three_ways(sol):
    assert sol.status.tolist() == [Status.CONVERGED, Status.MAX_ITER, Status.DIVERGED]


def test_every_residual_of_the_trace_is_drawn(sol, ax):
    plots.residuals(sol, ax=ax)
    for sample in range(3):
        drawn = ax.lines[sample].get_ydata()
        np.testing.assert_array_equal(drawn, np.asarray(sol.trace)[: len(drawn), sample])
        assert np.isinf(sol.trace[len(drawn) :]).all()
    assert ax.get_yscale() == "log"


def test_a_sample_ends_in_a_mark_that_tells_how(sol, ax):
    plots.residuals(sol, ax=ax)
    marks = [line for line in ax.lines if line.get_marker() in ("o", "x")]
    assert [line.get_marker() for line in marks] == ["o", "x", "x"]
    for sample in (0, 1):
        assert marks[sample].get_xdata() == [sol.iterations[sample]]


def test_the_bold_line_is_the_median_with_stopped_samples_at_their_last_residual(ax):
    trace = np.array([[1.0, 1.0, 1.0], [0.5, 0.3, np.inf], [0.2, np.inf, np.inf]])
    solution = Solution(np.zeros((3, 1)), trace.min(0), np.array([3, 2, 1]), np.array([0, 0, 1]), trace)
    plots.residuals({"by name": solution}, ax=ax)
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), [1.0, 0.5, 0.3])
    assert ax.get_legend().get_texts()[0].get_text() == "by name"


def test_a_batch_of_which_nothing_is_finite_is_drawn_without_a_warning(ax):
    gone = deq_jax.anderson(lambda z: z * jnp.nan, jnp.ones((2, 1)), trace=True)
    plots.residuals(gone, ax=ax)
    assert np.isnan(ax.lines[-1].get_ydata()).all()


def test_the_tolerance_is_a_line(sol, ax):
    plots.residuals(sol, tol=1e-2, ax=ax)
    assert set(ax.lines[-1].get_ydata()) == {1e-2}


def test_a_solution_without_a_trace_is_refused(ax):
    with pytest.raises(ValueError, match="Broyden has no trace: call the solver with trace=True"):
        plots.residuals({"Broyden": deq_jax.broyden(lambda z: 0.5 * z, jnp.ones((1, 1)))}, ax=ax)


def test_the_bars_count_every_sample_once(sol, ax):
    plots.iterations({"one": sol, "two": sol}, ax=ax)
    heights = {round(bar.get_x() + bar.get_width() / 2): 0.0 for bar in ax.patches}
    for bar in ax.patches:
        heights[round(bar.get_x() + bar.get_width() / 2)] += bar.get_height()
    expected = {int(n): 2.0 for n in sol.iterations}
    assert {n: height for n, height in heights.items() if height} == expected
    hatched = sum(bar.get_height() for bar in ax.patches if bar.get_hatch())
    assert hatched == 2 * 2


def test_a_wide_range_is_drawn_by_few_bars_that_still_count_every_sample(sol, ax):
    samples = 500
    spent = jnp.arange(3, 3 + samples)
    status = jnp.where(spent > 400, deq_jax.Status.MAX_ITER, deq_jax.Status.CONVERGED)
    plots.iterations(sol._replace(iterations=spent, status=status), ax=ax)
    assert len({bar.get_x() for bar in ax.patches}) <= 41
    assert sum(bar.get_height() for bar in ax.patches) == samples
    assert sum(bar.get_height() for bar in ax.patches if bar.get_hatch()) == int((spent > 400).sum())
    left, right = (f(bar.get_x() + bar.get_width() / 2 for bar in ax.patches) for f in (min, max))
    assert left < 3 + 13
    assert right > 502 - 13


def test_without_axes_matplotlib_s_current_ones_are_used(sol):
    import matplotlib.pyplot as plt

    with plt.rc_context():
        plt.switch_backend("agg")
        figure, ax = plt.subplots()
        assert plots.residuals(sol) is ax
        ax.clear()
        assert plots.iterations(sol) is ax
        plt.close(figure)


def test_curves_draw_what_the_records_say():
    records = [{"kind": "train", "step": k, "loss": 1 / k, "forward_residual": None} for k in range(1, 50)]
    figure = plots.curves([*records, {"kind": "eval", "step": 49, "accuracy": 0.5}], title="a run")
    loss, accuracy, _, residual = figure.axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [1 / k for k in range(1, 50)])
    assert accuracy.lines[0].get_ydata() == [50.0]
    assert not residual.lines
    assert figure.get_suptitle() == "a run"


def test_stability_has_panels_of_its_own_where_it_was_measured():
    plain, converged, radius = (
        {"kind": "eval", "step": 1, "accuracy": 0.5},
        {"kind": "train", "step": 1, "forward_converged": 0.75},
        {"kind": "eval", "step": 1, "spectral_radius": 0.5},
    )
    assert len(plots.curves([plain]).axes) == 4
    figure = plots.curves([plain, converged])
    assert [ax.get_title() for ax in figure.axes[4:]] == ["Samples short of the tolerance, %"]
    assert figure.axes[4].lines[0].get_ydata() == pytest.approx([25.0])
    figure = plots.curves([plain, converged, radius])
    assert [ax.get_title()[:8] for ax in figure.axes[4:]] == ["Spectral", "Samples "]
    assert figure.axes[4].lines[0].get_ydata() == [0.5]


def test_the_smoothed_curve_is_a_running_mean_that_keeps_the_ends():
    values = np.arange(200.0)
    smoothed = plots.smoothed(values)
    np.testing.assert_allclose(smoothed[50:150], values[50:150], rtol=1e-12)  # a line is its own running mean
    assert smoothed[0] == values[:4].mean()  # three to either side: half of 3% of 200
    assert smoothed[-1] == values[-4:].mean()


def test_without_matplotlib_the_error_says_what_to_install():
    code = "import sys; sys.modules['matplotlib'] = None\nimport deq_jax\nimport deq_jax.plots"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1] == (
        "ImportError: deq_jax.plots needs matplotlib: pip install 'deq_jax[plots]'."
    )


COUNTS = np.array([[8, 2, 0], [0, 5, 0], [0, 0, 0]])


def test_the_confusion_is_drawn_in_shares_of_a_class_and_written_in_samples():
    figure = plots.confusion(COUNTS, ["cat", "dog", "none of $x$"], title="a run")
    ax = figure.axes[0]
    np.testing.assert_array_equal(ax.images[0].get_array()[:2], [[80, 20, 0], [0, 100, 0]])
    assert np.isnan(ax.images[0].get_array().filled(np.nan)[2]).all()  # a class without a sample
    assert {(text.get_position(), text.get_text()) for text in ax.texts} == {
        ((0, 0), "8"),
        ((1, 0), "2"),
        ((1, 1), "5"),
    }
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog", r"none of \$x\$"]
    assert ax.get_title() == "a run"
    figure.canvas.draw()


def test_many_classes_are_drawn_without_numbers():
    figure = plots.confusion(np.eye(200, dtype=int), [str(k) for k in range(200)])
    assert not figure.axes[0].texts
    assert len(figure.axes[0].get_yticks()) <= 30
    figure.canvas.draw()


def test_names_are_as_many_as_classes():
    with pytest.raises(ValueError, match="of 3 classes, but there are 1 names"):
        plots.confusion(COUNTS, ["cat"])
