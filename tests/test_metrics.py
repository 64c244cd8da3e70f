import json
import zlib

import jax.numpy as jnp
import pytest

from deq_jax.training.disk import metrics
from deq_jax.training.errors import UserError
from deq_jax.training.steps.step import TrainMetrics
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
MEASURED = ("loss", "accuracy", *metrics.SOLVES)
SHARES = ["forward_converged", "adjoint_converged"]

DAMAGES = ['{"kind": "tr', "{", "\x00\x00", "5", "[]", '{"kind": "train"}', '{"step": 1}', "line of a merge"]


def train_line(step, loss=1.0):
    measured = dict.fromkeys(MEASURED, 0.5) | {"loss": loss}
    return metrics.line("train", step, 1, measured, ["accuracy"], seconds=float(step), step_seconds=1.0)


def test_a_line_has_the_keys_of_the_contract():
    assert train_line(1).keys() == CONTRACT | {"step_seconds"}
    assert metrics.line("eval", 1, 1, {"loss": 1.0}, ["accuracy"], seconds=2.0).keys() == CONTRACT


def test_shares_of_converged_solves_follow_what_the_contract_names():
    measured = dict.fromkeys((*SHARES, *MEASURED), 0.5)
    assert list(metrics.line("train", 1, 1, measured, ["accuracy"], seconds=2.0, step_seconds=1.0))[-3:] == [
        "step_seconds",
        *SHARES,
    ]
    evaluated = metrics.line("eval", 1, 1, {"loss": 1.0, "forward_converged": 0.25}, seconds=2.0)
    assert list(evaluated)[-2:] == ["seconds", "forward_converged"]
    assert evaluated["forward_converged"] == 0.25


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
    for step in (0, 5):
        metrics.drop_after(tmp_path / "metrics.jsonl", step)
        assert records(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("torn", DAMAGES)
def test_a_torn_last_line_is_left_out_and_removed_on_resume(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, train_line(1))
    path.write_text(path.read_text() + torn)
    assert metrics.read(path) == [train_line(1)]
    metrics.drop_after(path, 1)
    metrics.append(path, train_line(2))
    assert records(tmp_path) == [train_line(1), train_line(2)]


@pytest.mark.parametrize(
    "damaged",
    [
        *DAMAGES,
        "[" * 100_000,
        "9" * 5_000,
        *(
            json.dumps(train_line(1) | wrong)
            for wrong in (
                {"step": "1"},
                {"step": True},
                {"step": 10**400},
                {"epoch": None},
                {"seconds": None},
                {"seconds": "x"},
                {"loss": "nan"},
                {"loss": [1]},
                {"kind": "other"},
                {"kind": ["train"]},
                {"loss": 10**400},
            )
        ),
        json.dumps(train_line(1)).replace('"loss": 1.0', '"loss": 1e999'),
    ],
)
def test_a_damaged_line_never_ends_a_run_and_is_told(tmp_path, damaged, capsys):
    path = tmp_path / "metrics.jsonl"
    content = json.dumps(train_line(2)) + f"\n\n{damaged}\n" + json.dumps(train_line(3)) + "\n"
    path.write_text(content)
    assert metrics.read(path) == [train_line(2), train_line(3)]
    assert "has damaged lines, left out here: 3; checkpoints are untouched" in capsys.readouterr().err
    metrics.drop_after(path, 2)
    assert records(tmp_path) == [train_line(2)]
    assert (tmp_path / "metrics-0.jsonl").read_text() == content


def test_no_flipped_bit_makes_another_record(tmp_path, capsys):
    """Most flips of a digit are a digit again, or a number all the same."""
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, train_line(1, loss=4.0))
    metrics.append(path, train_line(2))
    content, told = path.read_bytes(), 0
    for place in range(8 * content.index(b"\n")):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        found = metrics.read(path)
        told += "has damaged lines, left out here: " in capsys.readouterr().err
        assert found in ([train_line(2)], [train_line(1, loss=4.0), train_line(2)])
    assert told == 8 * content.index(b"\n")


def test_a_line_ends_in_the_checksum_of_the_rest(tmp_path):
    metrics.append(tmp_path / "metrics.jsonl", train_line(1))
    checksum = f"{zlib.crc32(json.dumps(train_line(1)).encode()):08x}"
    assert (tmp_path / "metrics.jsonl").read_text() == json.dumps(train_line(1) | {"crc32": checksum}) + "\n"


def test_a_line_that_another_program_has_formatted_is_whole(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, train_line(1))
    path.write_text(json.dumps(json.loads(path.read_text()), separators=(",", ":")) + "\n")
    assert metrics.read(path) == [train_line(1)]
    assert not capsys.readouterr().err


def test_lines_that_tell_of_a_step_again_are_told(tmp_path, capsys):
    """As where two runs have mixed."""
    path = tmp_path / "metrics.jsonl"
    for line in (train_line(1), train_line(2), train_line(1, loss=7.0)):
        metrics.append(path, line)
    assert metrics.read(path) == [train_line(2), train_line(1, loss=7.0)]
    assert "lines of steps that later ones tell of again, left out here: 1;" in capsys.readouterr().err


def test_what_others_have_written_as_nan_is_null(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(train_line(1)).replace('"loss": 1.0', '"loss": NaN') + "\n")
    assert metrics.read(tmp_path / "metrics.jsonl") == [train_line(1) | {"loss": None}]


def test_lines_without_a_checksum_are_whole(tmp_path):
    """A run may be continued by a later version."""
    (tmp_path / "metrics.jsonl").write_text(json.dumps(train_line(1)) + "\n")
    assert metrics.read(tmp_path / "metrics.jsonl") == [train_line(1)]


def test_a_disk_that_is_full_is_a_user_error(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError) as error:
        metrics.append(tmp_path / "metrics.jsonl", train_line(1))
    expected = f"cannot write to {tmp_path}: No space left on device. Free space; started again, it goes on."
    assert str(error.value) == expected


def test_lines_after_the_restored_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3, 4):
        metrics.append(path, train_line(step))
    metrics.drop_after(path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert [record["step"] for record in records(tmp_path)] == [1, 2]


def test_a_start_from_nothing_keeps_the_lines_of_before_in_another_file(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    for k in range(2):
        metrics.append(path, train_line(k + 1))
        metrics.drop_after(path, 0)
        assert records(tmp_path) == []
        warning = f"{tmp_path} holds no checkpoint; starting anew, the former metrics are in metrics-{k}.jsonl."
        assert capsys.readouterr().err == f"warning: {warning}\n"
    assert [metrics.read(tmp_path / f"metrics-{k}.jsonl") for k in range(2)] == [[train_line(1)], [train_line(2)]]


def test_training_metrics_become_numbers():
    names = [*MEASURED, *SHARES, "penalty"]
    loss, accuracy, *others = (jnp.float32(k) for k in range(9))
    measured = TrainMetrics(loss, {"accuracy": accuracy}, *others, is_finite=jnp.bool(True))
    assert metrics.train_means(measured) == dict(zip(names, map(float, range(9)), strict=True))
