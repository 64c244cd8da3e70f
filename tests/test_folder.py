import dataclasses
import json

import pytest

from deq_jax.tasks.images.config import Config
from deq_jax.training.disk.folder import claim, read_config, require_usable
from deq_jax.training.disk.lock import held
from deq_jax.training.errors import UserError
from deq_jax.training.settings.solves import SolverConfig
from tests.runs import tiny


def test_a_claimed_folder_is_usable_by_the_same_run_and_holds_its_configuration(tmp_path):
    config = tiny(tmp_path / "new" / "run")
    require_usable(config.out, config)
    with held(config.out):
        require_usable(config.out, config)
        claim(config.out, config)
    require_usable(config.out, config)
    assert read_config(config.out, Config) == config


def test_how_long_and_where_may_change(tmp_path):
    claim(tmp_path, tiny(tmp_path))
    longer = tiny(tmp_path, max_steps=4, checkpoint_minutes=1.0, data_dir=tmp_path)
    require_usable(tmp_path, longer)
    claim(tmp_path, longer)
    assert read_config(tmp_path, Config) == longer


def test_another_configuration_is_refused_by_the_fields_that_differ(tmp_path):
    claim(tmp_path, tiny(tmp_path))
    other = tiny(tmp_path, seed=1, solver=dataclasses.replace(tiny(tmp_path).solver, tol=1e-3))
    with pytest.raises(UserError) as error:
        require_usable(tmp_path, other)
    message = str(error.value)
    assert "seed 0 instead of 1" in message
    assert "solver.tol 0.01 instead of 0.001" in message
    assert message.count("\n") <= 1
    assert read_config(tmp_path, Config) == tiny(tmp_path)


def test_a_setting_that_an_older_run_did_not_have_takes_its_default(tmp_path):
    config = tiny(tmp_path, solver=SolverConfig())
    claim(config.out, config)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["solver"]["beta"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert read_config(tmp_path, Config) == config


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="holds files, but no run"):
        require_usable(tmp_path, tiny(tmp_path))


def test_what_a_save_leaves_whose_folder_was_removed_beneath_it_is_in_nobodys_way(tmp_path):
    left = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp"
    left.mkdir(parents=True)
    require_usable(tmp_path, tiny(tmp_path))
    (left / "seal.json").touch()
    with pytest.raises(UserError, match="holds files, but no run"):
        require_usable(tmp_path, tiny(tmp_path))


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        require_usable(tmp_path / "file", tiny(tmp_path))
    with pytest.raises(UserError, match="cannot write to"):
        claim(tmp_path / "file" / "run", tiny(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "Expecting property name"),
        ("[]", "it is no JSON object"),
        ("{}", "data and out missing"),
        ('{"dataset": "digits"}', "out missing"),
        ('{"dataset": "digits", "out": "x", "hue": 1, "model": {"depth": 3}}', "unknown hue, model.depth"),
        ('{"dataset": "digits", "out": "x", "model": 1}', "unknown model"),
        ('{"dataset": "digits", "out": "x", "epochs": "3"}', "epochs is '3'; expected a whole number."),
        (
            '{"dataset": "digits", "out": "x", "solver": {"method": "foo"}}',
            "solver.method is 'foo'; expected 'anderson'",
        ),
        (
            '{"dataset": "digits", "out": "x", "evaluation": {"flip": "no"}}',
            "evaluation.flip is 'no'; expected True or",
        ),
        ('{"dataset": "digits", "out": "x", "model": {"stem": [1.5]}}', "model.stem is 1.5; expected a whole number"),
        ('{"dataset": "digits", "out": "x", "solver": {"tol": true}}', "solver.tol is True; expected a number"),
        ("[" * 100_000, "maximum recursion depth"),
        ("\x00\x00", "Expecting value"),
        ('{"dataset": "digits", "out": "x", "solver": {"tol": -1.0}}', "tol must be positive, but is -1.0"),
    ],
)
def test_a_damaged_configuration_is_a_user_error_that_says_once_what_is_wrong(tmp_path, content, said):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError) as error:
        read_config(tmp_path, Config)
    path = tmp_path / "config.json"
    assert str(error.value).startswith(f"{path} is damaged, or of another version of deq_jax: {said}")
    assert str(error.value).count("of deq_jax") == 1


def test_a_folder_in_the_configurations_place_is_a_user_error(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config\.json cannot be read: Is a directory"):
        read_config(tmp_path, Config)
