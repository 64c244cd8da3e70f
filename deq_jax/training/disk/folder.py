"""A run's folder: whose it is, and the configuration that it holds, a frozen dataclass of settings and of groups."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath

from deq_jax.training.disk import environment
from deq_jax.training.disk.files import write_atomically, writing_to
from deq_jax.training.errors import UserError
from deq_jax.training.settings.length import why_not_longer
from deq_jax.training.settings.record import differences, from_dict, to_dict

_OPENER = "task"
"""The key of config.json beside those of the configuration."""


def require_usable(out: Path, config: Any, opener: str | None = None) -> None:
    """Raises UserError where the folder holds a run of another task or configuration, or something that is no run.

    More epochs are no other configuration where nothing in it spans all of them.
    """
    try:
        str(out).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{_printable(out)} is no name in UTF-8; name another folder to keep the run in.") from error
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder to keep the run in.")
    if (out / "config.json").exists():
        require_task(out, opener, "choose another folder")
        theirs = read_config(out, type(config))
        different = differences(theirs, config)
        if different.keys() == {"epochs"} and config.epochs > theirs.epochs:
            why = why_not_longer(config)
            if why is not None:
                raise UserError(
                    f"{out} cannot be made longer, {config.epochs} epochs instead of {theirs.epochs}: {why}, so that "
                    f"its steps would have been others.\n"
                    f"Begin another run with its weights, in another folder: initial.run {out}"
                )
        elif different:
            fields = ", ".join(f"{name} {theirs} instead of {ours}" for name, (theirs, ours) in different.items())
            raise UserError(
                f"{out} holds a run of another configuration: {fields}.\n"
                f"Choose another folder, or repeat that run's settings to continue it."
            )
    elif config.checkpoint_dir is not None and _holds_something(config.checkpoint_dir):
        raise UserError(
            f"checkpoint_dir {config.checkpoint_dir} holds something already; name a new or an empty folder."
        )
    elif out.exists() and not all(entry.name.startswith(".") or _is_left_over(entry) for entry in out.iterdir()):
        raise UserError(f"{out} holds files, but no run (no config.json); name a new or an empty folder.")


def _is_left_over(entry: Path) -> bool:
    """A save that was under way when the run's folder was removed may have made it again: nothing that is whole."""
    return entry.name == "checkpoints" and entry.is_dir() and not any(entry.glob("*/seal.json"))


def _holds_something(folder: str) -> bool:
    place = epath.Path(folder)
    try:
        return place.exists() and (not place.is_dir() or any(True for _ in place.iterdir()))
    except Exception as error:  # of whatever library the URL takes
        raise UserError(f"checkpoint_dir {folder} cannot be looked into ({type(error).__name__}: {error}).") from error


def _printable(path: Path) -> str:
    return str(path).encode(errors="backslashreplace").decode()


def require_task(run: Path, opener: str | None, advice: str) -> None:
    """Raises UserError, which ends in the advice, where config.json names another task; older ones name none."""
    theirs = _values(run).get(_OPENER, opener)
    if theirs != opener:
        theirs, ours = (f"the task {name}" if name else "a task of one's own" for name in (theirs, opener))
        raise UserError(f"{run} holds a run of {theirs}, not of {ours}; {advice}.")


def require_same_data(out: Path, data: Mapping[str, Any], unit: str, remedy: str) -> None:
    """Raises UserError where the run has been trained on other data than these; see `environment.describe_data`."""
    known: dict[str, Any] = {}
    for start in environment.starts(out):  # a run of before there was a digest has got one since
        known |= start.get("data", {})
    different = [name for name in known.keys() & data.keys() if known[name] != data[name]]
    if None in (known.get("digest"), data["digest"]):  # of what is read as it is asked for
        different = [name for name in different if name != "digest"]
    if different:
        was, now = (
            f"{of[f'training_{unit}']:,} training and {of[f'test_{unit}']:,} test {unit}"
            + (f", stored as {of['encoding']}" if of["encoding"] else "")
            for of in ({**data, **known}, data)
        )
        raise UserError(
            f"{out} was trained on other data: {was}; now it is {'others' if was == now else now}.\n"
            f"{remedy}, or choose another folder for the run."
        )


def claim(out: Path, config: Any, opener: str | None = None) -> None:
    """Writes config.json into the folder, which is there; `opener` as `run.run` has it."""
    with writing_to(out):
        write_atomically(out / "config.json", json.dumps({_OPENER: opener} | to_dict(config), indent=2) + "\n")


def opener_of(run: Path) -> str | None:
    """The module that can open the run's task again, where config.json names one; raises as `read_config` does."""
    name = _values(run).get(_OPENER)
    return name if isinstance(name, str) else None


def read_config[T](run: Path, kind: type[T]) -> T:
    """The configuration of a run, which is of this kind, and which its `upgraded` has read first where there is one.

    Raises:
        UserError: `run` is no run's folder, or its config.json is damaged.
    """
    values = _values(run)
    values.pop(_OPENER, None)
    try:
        values = getattr(kind, "upgraded", lambda values: values)(values)
        return from_dict(kind, values)
    except UserError as error:
        raise _damaged(run, error) from error


def _values(run: Path) -> dict[str, Any]:
    path = run / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        return values
    except OSError as error:
        if path.exists():
            raise UserError(f"{path} cannot be read: {error.strerror}.") from error
        problem = "does not exist" if not run.exists() else "is not a run: it holds no config.json"
        raise UserError(f"{run} {problem}. Expected the folder that a training has written.") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(run, error) from error


def _damaged(run: Path, error: Exception) -> UserError:
    return UserError(f"{run / 'config.json'} is damaged, or of another version of deq_jax: {error}")
