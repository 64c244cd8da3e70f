"""Settings given as keywords."""

from pathlib import Path

import pytest

from deq_jax.training.errors import UserError
from deq_jax.training.settings.given import settled
from deq_jax.training.settings.settings import Settings
from deq_jax.training.settings.solves import SolverConfig
from tests.unchecked import unchecked


def test_keywords_are_settings_and_a_group_s_dictionary_changes_that_group_alone():
    settings = settled(None, {"out": "run", "epochs": 3, "solver": {"m": 2}, "optimizer": {"learning_rate": 1}})
    assert (settings.out, settings.epochs, settings.solver) == (Path("run"), 3, SolverConfig(m=2))
    assert settings.optimizer.learning_rate == 1.0
    longer = settled(settings, {"epochs": 9, "solver": {"tol": 1e-3}})
    assert (longer.epochs, longer.solver) == (9, SolverConfig(m=2, tol=1e-3))
    assert settled(longer, {}) == longer


def test_a_group_may_be_given_as_it_is_and_none_where_none_is_a_value():
    settings = settled(None, {"out": Path("run"), "solver": SolverConfig(m=2), "max_steps": None, "average_decay": 0.5})
    assert settings == Settings(out=Path("run"), solver=SolverConfig(m=2), average_decay=0.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epoch": 3}, "there is no setting epoch; did you mean epochs?"),
        ({"solver": {"tool": 3}}, "there is no setting solver.tool; did you mean solver.tol"),
        ({"epochs": 2.5}, "epochs is 2.5; expected a whole number."),
        ({"epochs": True}, "epochs is True; expected a whole number."),
        ({"max_steps": "9"}, "max_steps is '9'; expected a whole number or None."),
        ({"out": ""}, "out is ''; expected a folder."),
        ({"solver": 1e-3}, "solver is 0.001; expected a SolverConfig or a dictionary of its fields."),
        ({"solver": {"method": "andersen"}}, "solver.method is 'andersen'; expected 'anderson' or 'broyden' or"),
        ({"solver": {"tol": 2.0}}, "solver.tol must be below 1, but is 2"),
        ({"epochs": 0}, "epochs must be positive, but is 0"),
    ],
)
def test_what_is_no_setting_is_said(changes, said):
    with pytest.raises(UserError) as error:
        settled(None, {"out": "run"} | changes)
    assert str(error.value).startswith(said)


def test_a_run_needs_a_folder():
    with pytest.raises(UserError, match="out is missing: name a folder"):
        settled(None, {"epochs": 3})
    with pytest.raises(UserError, match=r"settings are a str; expected a training\.Settings"):
        unchecked(settled)("run", {})
