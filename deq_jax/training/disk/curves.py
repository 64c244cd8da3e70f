"""curves.png: how a run went, drawn from its metrics.jsonl alone."""

from collections.abc import Mapping
from pathlib import Path

from deq_jax import plots
from deq_jax.training.disk.files import writing_to
from deq_jax.training.disk.metrics import Record, read, said


def draw(run: Path, units: Mapping[str, str]) -> None:
    """Draws loss, the task's own metrics, evaluations and residuals over a run's steps into `run`/curves.png.

    `units` are the names and units of the metrics.
    """
    records = read(run / "metrics.jsonl")
    figure = plots.curves(records, title=_headline(run, records, units), metrics=units)
    temporary = run / ".curves.png"
    with writing_to(run):
        figure.savefig(temporary, dpi=110, format="png")
        temporary.replace(run / "curves.png")


def _headline(run: Path, records: list[Record], units: Mapping[str, str]) -> str:
    evals = [record for record in records if record["kind"] == "eval"]
    run_name = run.absolute().name.replace("$", r"\$")  # a folder's name is no formula
    name, unit = next(iter(units.items()), ("loss", ""))
    if not evals or evals[-1].get(name) is None:
        return run_name
    last = evals[-1]
    value = said(last[name], unit)
    return f"{run_name}: {value if unit == '%' else f'{name} {value}'} on the test split after {last['step']} steps"
