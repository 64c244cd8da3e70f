import dataclasses
import json
from pathlib import Path

import pytest

from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.presets import PRESETS
from deq_jax.training.errors import UserError
from deq_jax.training.settings.record import MAY_DIFFER, differences, flatten, from_dict, to_dict
from deq_jax.training.settings.settings import Settings
from deq_jax.training.settings.solves import AdjointConfig, SolverConfig


@pytest.mark.parametrize("name", PRESETS)
def test_a_configuration_survives_json(name):
    config = dataclasses.replace(
        PRESETS[name](), data_dir=Path("data"), max_steps=7, adjoint=AdjointConfig(tol=1e-3, method="forward-iteration")
    )
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


def test_an_unknown_field_in_a_stored_configuration_is_a_user_error():
    with pytest.raises(UserError, match="colour"):
        from_dict(Config, to_dict(PRESETS["digits"]()) | {"colour": "red"})


def test_any_dataclass_of_values_and_groups_survives_json():
    settings = Settings(Path("x"), solver=SolverConfig(tol=0.5), average_decay=0.9)
    assert from_dict(Settings, json.loads(json.dumps(to_dict(settings)))) == settings


def test_differences_name_what_makes_another_run_and_leave_out_where_and_how_long():
    config = PRESETS["digits"]()
    elsewhere = dataclasses.replace(
        config, out=Path("x"), data_dir=Path("y"), max_steps=3, checkpoint_minutes=1.0, seed=config.seed + 1
    )
    assert differences(config, elsewhere) == {"seed": (config.seed, config.seed + 1)}
    other = dataclasses.replace(config, solver=SolverConfig(tol=0.5))
    assert differences(config, other)["solver.tol"] == (config.solver.tol, 0.5)
    assert flatten(to_dict(config)).keys() >= MAY_DIFFER
