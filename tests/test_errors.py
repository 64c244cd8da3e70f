import pytest

from deq_jax.training.errors import NonFiniteLossError, UserError, reported_errors


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("no such preset"), 2, "error: no such preset"),
        (NonFiniteLossError("diverged"), 1, "error: diverged"),
        (IsADirectoryError(21, "Is a directory", "metrics.jsonl"), 2, "error: Is a directory: metrics.jsonl."),
        (OSError(18, "Cross-device link", ".new", None, "old"), 2, "error: Cross-device link: old."),
        (OSError(28, "No space left on device"), 2, "error: No space left on device."),
        (OSError("a library's own words"), 2, "error: a library's own words."),
        (MemoryError(), 2, "error: there is not enough memory; a smaller batch takes less."),
        (RuntimeError("can't start new thread"), 2, "error: there is not enough memory; a smaller batch takes less."),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_the_user_can_mend_is_said_in_a_line(error, status, said, capsys):
    with pytest.raises(SystemExit) as end, reported_errors():
        raise error
    assert end.value.code == status
    assert capsys.readouterr().err == f"{said}\n"


@pytest.mark.parametrize("error", [ZeroDivisionError, RuntimeError("a bug")])
def test_what_is_wrong_with_the_program_keeps_its_traceback(error):
    with pytest.raises((ZeroDivisionError, RuntimeError)), reported_errors():
        raise error
