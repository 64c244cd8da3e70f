import json

import jax.numpy as jnp
import pytest

from deq_jax.training import metrics
from deq_jax.training.step import EvalSums, TrainMetrics
from tests.runs import records

CONTRACT = {
    "kind",
    "step",
    "epoch",
    "loss",
    "accuracy",
    "forward_iterations",
    "forward_residual",
    "adjoint_iterations",
    "adjoint_residual",
    "seconds",
}


def train_line(step, loss=1.0):
    measured = dict.fromkeys(metrics.MEASURED, 0.5) | {"loss": loss}
    return metrics.line("train", step, 1, measured, seconds=float(step), step_seconds=1.0)


def test_a_line_has_the_keys_of_the_contract():
    assert train_line(1).keys() == CONTRACT | {"step_seconds"}
    assert metrics.line("eval", 1, 1, {"loss": 1.0}, seconds=2.0).keys() == CONTRACT


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_null_since_json_has_no_word_for_it(tmp_path, loss):
    metrics.append(tmp_path / "metrics.jsonl", train_line(1, loss))
    assert records(tmp_path) == [train_line(1) | {"loss": None}]


def test_an_evaluation_measures_no_adjoint(tmp_path):
    line = metrics.line("eval", 1, 1, {"loss": 1.0, "accuracy": 0.5, "images": 3.0}, seconds=2.0)
    assert line["adjoint_iterations"] is None
    assert line["adjoint_residual"] is None
    assert "images" not in line


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [train_line(step) for step in (1, 2, 3)]
    for line in lines:
        metrics.append(path, line)
    assert metrics.read(path) == lines


def test_no_file_has_no_lines(tmp_path):
    assert metrics.read(tmp_path / "metrics.jsonl") == []
    assert metrics.drop_after(tmp_path / "metrics.jsonl", 5) == []


@pytest.mark.parametrize("torn", ['{"kind": "tr', '{"kind": "train"}'[:1], "\x00\x00"])
def test_a_torn_last_line_is_left_out_and_removed_on_resume(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, train_line(1))
    path.write_text(path.read_text() + torn)
    assert metrics.read(path) == [train_line(1)]
    metrics.drop_after(path, 1)
    metrics.append(path, train_line(2))
    assert records(tmp_path) == [train_line(1), train_line(2)]


def test_a_broken_line_in_the_middle_is_an_error_not_a_gap(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "tr\n' + json.dumps(train_line(2)) + "\n")
    with pytest.raises(ValueError, match="line 1"):
        metrics.read(path)


def test_lines_after_the_restored_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3, 4):
        metrics.append(path, train_line(step))
    assert [record["step"] for record in metrics.drop_after(path, 2)] == [1, 2]
    assert [record["step"] for record in records(tmp_path)] == [1, 2]


def test_training_metrics_become_numbers():
    measured = TrainMetrics(*(jnp.float32(k) for k in range(6)), is_finite=jnp.bool(True))
    assert metrics.train_means(measured) == dict(zip(metrics.MEASURED, map(float, range(6)), strict=True))


def test_means_over_batches_weigh_every_image_alike():
    sums = [
        EvalSums(images=3.0, loss=6.0, accuracy=3.0, forward_iterations=30.0, forward_residual=0.3, converged=3.0),
        EvalSums(images=1.0, loss=6.0, accuracy=0.0, forward_iterations=2.0, forward_residual=0.1, converged=0.0),
    ]
    means = metrics.eval_means(sums)
    assert means.pop("forward_residual") == pytest.approx(0.1)  # 0.4 / 4, rounded in binary
    assert means == {"images": 4.0, "loss": 3.0, "accuracy": 0.75, "forward_iterations": 8.0, "converged": 0.75}
