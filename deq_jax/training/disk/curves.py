"""curves.png: how a run went, drawn from its metrics.jsonl alone."""

import sys
from collections.abc import Mapping
from pathlib import Path

from deq_jax.training.disk.files import require_own
from deq_jax.training.disk.metrics import Record, read, said


def draw(run: Path, units: Mapping[str, str]) -> None:
    """Draws loss, the task's own metrics, evaluations and residuals over a run's steps into `run`/curves.png.

    What keeps it from being drawn is said on stderr. `units` are the names and units of the metrics.
    """
    records = read(run / "metrics.jsonl")
    require_own(run)
    try:
        from deq_jax import plots  # here, since it may not even be imported: of a backend that there is not

        figure = plots.curves(records, title=_headline(run, records, units), metrics=units)
        temporary = run / ".curves.png"
        figure.savefig(temporary, dpi=110, format="png")
        temporary.replace(run / "curves.png")
    except Exception as error:  # noqa: BLE001 - whatever a drawing library raises, a picture is not worth a run
        reason = " ".join(str(error).split())[:160]
        print(f"warning: {run / 'curves.png'} is not drawn ({type(error).__name__}: {reason}).", file=sys.stderr)


def _headline(run: Path, records: list[Record], units: Mapping[str, str]) -> str:
    evals = [record for record in records if record["kind"] == "eval"]
    run_name = run.absolute().name.replace("$", r"\$")  # a folder's name is no formula
    name, unit = next(iter(units.items()), ("loss", ""))
    if not evals or evals[-1].get(name) is None:
        return run_name
    last = evals[-1]
    value = said(last[name], unit)
    return f"{run_name}: {value if unit == '%' else f'{name} {value}'} on the test split after {last['step']} steps"
