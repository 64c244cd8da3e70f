import matplotlib.image
import numpy as np
import pytest

from deq_jax.training.disk import curves, metrics

MEASURED = ("loss", "accuracy", *metrics.SOLVES)


def write(run, *lines):
    for line in lines:
        metrics.append(run / "metrics.jsonl", line)


def train(step, **changes):
    measured = dict.fromkeys(MEASURED, 0.5) | changes
    return metrics.line("train", step, 1, measured, ["accuracy"], seconds=1.0, step_seconds=1.0)


def evaluation(step):
    measured = {name: 0.5 for name in MEASURED if not name.startswith("adjoint")}
    return metrics.line("eval", step, 1, measured, ["accuracy"], seconds=1.0)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [train(1)],
        [train(step) for step in range(1, 300)] + [evaluation(299)],
        [evaluation(0)],
        [train(1, loss=float("nan"), adjoint_residual=float("inf")), train(2, forward_residual=0.0)],
        [train(1, forward_residual=0.0, adjoint_residual=0.0)],
    ],
    ids=["nothing", "one step", "a run", "only an evaluation", "nulls", "zero residuals"],
)
def test_any_run_can_be_drawn(tmp_path, lines):
    write(tmp_path, *lines)
    curves.draw(tmp_path, {"accuracy": "%"})
    picture = matplotlib.image.imread(tmp_path / "curves.png")
    assert min(picture.shape[:2]) > 500
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("lines", [[train(1)], [evaluation(1)]], ids=["begun", "evaluated"])
def test_a_folder_s_name_is_no_formula(tmp_path, lines):
    run = tmp_path / r"$\nothing$"
    run.mkdir()
    write(run, *lines)
    curves.draw(run, {"accuracy": "%"})
    assert (run / "curves.png").exists()


def test_what_is_drawn_is_in_the_metrics(tmp_path):
    """Without lines the axes are empty; with them there is more ink."""
    write(tmp_path, *(train(step, loss=1 / step) for step in range(1, 50)))
    curves.draw(tmp_path, {"accuracy": "%"})
    drawn = matplotlib.image.imread(tmp_path / "curves.png")
    (tmp_path / "metrics.jsonl").write_text("")
    curves.draw(tmp_path, {"accuracy": "%"})
    empty = matplotlib.image.imread(tmp_path / "curves.png")
    colour = np.array([0x1F, 0x6F, 0x8B]) / 255

    def ink(picture):
        # Half a level of 8 bits: the line's own colour, not its soft edges.
        return (np.abs(picture[..., :3] - colour) < 0.5 / 255).all(-1).sum()

    assert ink(empty) == 0
    assert ink(drawn) > 500


def test_stability_is_drawn_where_it_was_measured(tmp_path):
    def ink(*measured):
        (tmp_path / "metrics.jsonl").write_text("")
        for step, radius in enumerate(measured, 1):
            write(tmp_path, metrics.line("eval", step, 1, {"spectral_radius_max": radius}, seconds=1.0))
        curves.draw(tmp_path, {"accuracy": "%"})
        picture = matplotlib.image.imread(tmp_path / "curves.png")
        colour = np.array([0xD1, 0x60, 0x3D]) / 255
        return (np.abs(picture[..., :3] - colour) < 0.5 / 255).all(-1).sum()

    assert ink() == 0
    assert ink(0.9, 1.1) > 20


def test_a_picture_that_cannot_be_drawn_ends_no_run(tmp_path, capsys, monkeypatch):
    write(tmp_path, train(1))
    (tmp_path / ".curves.png").mkdir()
    curves.draw(tmp_path, {"accuracy": "%"})
    assert capsys.readouterr().err.startswith(f"warning: {tmp_path / 'curves.png'} is not drawn (IsADirectoryError")
    monkeypatch.setattr("deq_jax.plots.curves", lambda *arguments, **options: 1 / 0)
    curves.draw(tmp_path, {"accuracy": "%"})
    assert "is not drawn (ZeroDivisionError" in capsys.readouterr().err
