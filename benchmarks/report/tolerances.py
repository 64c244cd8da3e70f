"""``python -m benchmarks.report.tolerances``: what finished runs are worth when they are solved more exactly.

Evaluates every finished run of an equilibrium on the test split at several tolerances, and writes the lines to the
run's ``evaluations.jsonl``, which RESULTS.md shows.
"""

import json
import sys
from pathlib import Path

import tyro

from benchmarks.report.runs import finished
from deq_jax.evaluate import evaluate_run
from deq_jax.training.errors import UserError
from deq_jax.training.process.compilation import use_persistent_cache


def main(
    runs: Path = Path("runs"),
    data_dir: Path | None = None,
    tolerances: tuple[float, ...] = (1e-2, 1e-3, 1e-4),
    max_iter: int = 60,
) -> None:
    """Evaluate all finished runs below a folder at several tolerances.

    Args:
        runs: the folder that holds the runs' folders.
        data_dir: where the data set lies; by default where each run found it.
        tolerances: relative residuals at which a solve is done.
        max_iter: evaluations of f at most.
    """
    use_persistent_cache()
    for run in finished(sorted(path.parent for path in runs.rglob("config.json"))):
        if run.config.model.kind == "explicit":
            continue
        lines = []
        try:
            for tol in tolerances:
                lines.append(json.dumps(evaluate_run(run.folder, data_dir, tol=tol, max_iter=max_iter)))
                print(f"{run.folder}: {lines[-1]}", flush=True)
        except UserError as error:
            print(f"warning: {run.folder} is left as it was, since it cannot be evaluated: {error}", file=sys.stderr)
            continue
        (run.folder / "evaluations.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
