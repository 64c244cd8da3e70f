import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from deq_jax.tasks.presets import PRESETS
from deq_jax.training.errors import UserError
from deq_jax.training.process.cli import QUIET, parse, without_switch
from deq_jax.training.settings.solves import AdjointConfig
from tests.runs import TINY_FIELDS, tiny

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_alone_is_that_preset(name):
    assert parse([name], PRESETS) == PRESETS[name]()


def test_every_kind_of_field_can_be_given():
    config = parse(
        [
            "digits",
            "--epochs",
            "3",
            "--max-steps",
            "30",
            "--data-dir",
            "D",
            "--out=O",
            "--seed",
            "1",
            "--solver.tol",
            "1e-3",
            "--model.channels",
            "24",
            "--adjoint.max_iter",
            "4",
            "--model.kind",
            "deq",
            "--model.stem",
            "16",
            "32",
            "--model.stem-factors",
            "2",
            "1",
            "--augmentation.flip",
            "True",
            "--average-decay",
            "0.99",
        ],
        PRESETS,
    )
    digits = PRESETS["digits"]()
    assert config == dataclasses.replace(
        digits,
        epochs=3,
        max_steps=30,
        data_dir=Path("D"),
        out=Path("O"),
        seed=1,
        solver=dataclasses.replace(digits.solver, tol=1e-3),
        model=dataclasses.replace(digits.model, channels=24, kind="deq", stem=(16, 32), stem_factors=(2, 1)),
        adjoint=AdjointConfig(max_iter=4),
        augmentation=dataclasses.replace(digits.augmentation, flip=True),
        average_decay=0.99,
    )


def test_the_tests_own_settings_are_the_same_on_the_command_line():
    assert parse(["digits", "--out", "x", *TINY_FIELDS], PRESETS) == tiny(Path("x"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", "a preset comes first"),
        ("--epochs 3", "a preset comes first"),
        ("digit", "unknown preset 'digit'; did you mean digits?"),
        ("mnist", "Presets: digits, cifar10-tutorial, cifar10-fast,"),
        ("mnist", "Expected python train.py PRESET [--field value ...]."),
        ("digits --seed 12345678901234567890", "seed must be at most 4,294,967,295"),
        ("digits --epoch 3", "unknown field '--epoch'; did you mean --epochs?"),
        ("digits --solver.tool=3", "unknown field '--solver.tool'; did you mean --solver.tol"),
        ("digits --quite", "unknown field '--quite'; did you mean --quiet?"),
        ("digits --colour red", "Fields: data, out, data-dir"),
        ("digits --epochs many", "--epochs: invalid"),
        ("digits --epochs", "Missing value for argument '--epochs'"),
        ("digits --epochs 3 4", "Unrecognized options: 4"),
        ("digits -e 3", "Unrecognized options: -e"),
        ("digits --data.source mnist", "data: unknown source 'mnist'; there are: digits, cifar10, folder:DIR"),
        ("digits --solver.tol -1", "solver: tol must be positive, but is -1.0"),
        ("digits --adjoint.m 0", "adjoint: m must be positive, but is 0"),
        ("digits --batch-size 0", "batch_size must be positive, but is 0"),
    ],
)
def test_what_is_not_understood_is_said_in_two_lines_at_most(arguments, expected):
    with pytest.raises(UserError) as error:
        parse(arguments.split(), PRESETS)
    assert expected in str(error.value)
    assert str(error.value).count("\n") <= 1


def test_a_switch_is_taken_out_wherever_it_stands():
    assert without_switch(["digits", "--quiet", "--seed", "1"], QUIET) == (["digits", "--seed", "1"], True)
    assert without_switch(["digits"], QUIET) == (["digits"], False)


@pytest.mark.parametrize("arguments", [["--out", ""], ["--out="], ["--seed", "1", "--data-dir", ""]])
def test_an_empty_path_is_not_taken_for_the_current_folder(arguments):
    with pytest.raises(UserError, match=r"^--(out|data-dir) is empty: give it a value, or leave it out\.$"):
        parse(["digits", *arguments], PRESETS)


@pytest.mark.parametrize("arguments", ["--help", "cifar10-tutorial --help", "digits --epochs 3 -h"])
def test_help_shows_presets_and_fields(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        parse(arguments.split(), PRESETS)
    assert end.value.code == 0
    printed = capsys.readouterr().out
    for word in [*PRESETS, QUIET, "--epochs", "--data-dir", "--solver.tol", "--model.channels", "--adjoint.tol"]:
        assert word in printed


def test_a_mistake_ends_train_py_with_status_2_and_no_traceback():
    ended = subprocess.run([sys.executable, "train.py", "digit"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "error: unknown preset 'digit'; did you mean digits?",
        f"Expected python train.py PRESET [--field value ...]. Presets: {', '.join(PRESETS)}.",
    ]
