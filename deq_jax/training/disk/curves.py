"""curves.png: how a run went, drawn from its metrics.jsonl alone."""

from pathlib import Path

from deq_jax import plots
from deq_jax.training.disk.files import writing_to
from deq_jax.training.disk.metrics import Record, read


def draw(run: Path) -> None:
    """Draws loss, accuracy where there is one, evaluations and residuals over a run's steps into `run`/curves.png."""
    records = read(run / "metrics.jsonl")
    figure = plots.curves(records, title=_headline(run, records))
    temporary = run / ".curves.png"
    with writing_to(run):
        figure.savefig(temporary, dpi=110, format="png")
        temporary.replace(run / "curves.png")


def _headline(run: Path, records: list[Record]) -> str:
    evals = [record for record in records if record["kind"] == "eval"]
    name = run.absolute().name.replace("$", r"\$")  # a folder's name is no formula
    if not evals or evals[-1].get("accuracy") is None:
        return name
    last = evals[-1]
    return f"{name}: {100 * last['accuracy']:.2f}% on the test split after {last['step']} steps"
