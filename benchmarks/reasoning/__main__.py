"""Compares one cell as an equilibrium with what it could be instead: python -m benchmarks.reasoning TASK.

Trains every contestant with every seed, each in a process of its own, for equal times, and measures it. The same
command goes on where it was stopped: what is trained and measured already is left as it is. Writes into --out
TASK.json, with all that was measured, TASK.md, with the tables, and the pictures. --redraw makes tables and pictures of
what is there; --results puts them into RESULTS.md and docs/images, too.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT
from benchmarks.reasoning import page, pictures, tables, worker
from benchmarks.reasoning.contestants import QUESTIONS, contestants
from benchmarks.reasoning.plan import Plan, plan_for


def in_process(out: Path, task: str, contestant: str, seed: int, steps: int | None = None) -> None:
    """Runs the worker; raises SystemExit where it fails or is stopped."""
    command = [sys.executable, "-m", "benchmarks.reasoning.worker", str(out.absolute()), task, contestant, str(seed)]
    command += [] if steps is None else ["--steps", str(steps)]
    try:
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if status:
        raise SystemExit(status)


def compared(
    task: str, seeds: list[int], minutes: float | None, out: Path, run: Callable[..., None] = in_process
) -> list[dict[str, Any]]:
    """The results of all contestants and seeds; trains and measures what there are none of."""

    def timed(contestant: str) -> Plan:
        run(out, task, contestant, 0)
        return json.loads(worker.path_of(out / worker.TIMING, task, contestant, 0).read_text())

    plan = plan_for(task, minutes, out, timed)
    print(told(plan), flush=True)
    rows = []
    for seed in seeds:
        for contestant in contestants(task):
            path = worker.path_of(out, task, contestant, seed)
            if not is_answered(path, task):
                print(f"{task}, {contestant}, seed {seed}", flush=True)
                run(out, task, contestant, seed, plan["contestants"][contestant]["steps"])
            rows.append(json.loads(path.read_text()))
    return rows


def is_answered(path: Path, task: str) -> bool:
    """Whether a file of results answers the questions that are asked today."""
    questions = QUESTIONS[task]
    asked = [list(questions.difficulties), list(questions.evaluations), questions.problems]
    return path.exists() and json.loads(path.read_text())["asked"] == asked


def told(plan: Plan) -> str:
    """What each contestant is given."""
    trials = plan["contestants"]
    most = next(iter(trials.values()))["parameters"]
    lines = [
        f"  {name}: {trial['parameters']:,} parameters ({trial['parameters'] / most - 1:+.1%}), "
        f"{trial['steps']:,} steps of {1000 * trial['seconds']:.0f} ms"
        for name, trial in trials.items()
    ]
    return "\n".join([f"{plan['minutes']:.1f} minutes of training steps each:", *lines])


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reasoning", description=__doc__)
    parser.add_argument("task", choices=QUESTIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, help="of training steps; the preset's steps if not given")
    parser.add_argument("--out", type=Path, default=Path("runs/reasoning"))
    parser.add_argument("--redraw", action="store_true", help="train and measure nothing")
    parser.add_argument("--results", action="store_true", help="write into RESULTS.md and docs/images, too")
    given = parser.parse_args(arguments)
    results = given.out / f"{given.task}.json"
    if given.redraw:
        if not results.exists():
            raise SystemExit(f"{results} does not exist; run the comparison first, without --redraw.")
        rows = json.loads(results.read_text())
    else:
        rows = compared(given.task, given.seeds, given.minutes, given.out)
        results.write_text(json.dumps(rows) + "\n")
    text = tables.tables(given.task, rows)
    (given.out / f"{given.task}.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    pictures.draw(given.task, rows, given.out)
    if given.results:
        page.put(ROOT / "RESULTS.md", given.task, text, pictures.draw(given.task, rows, ROOT / "docs/images"))


if __name__ == "__main__":
    main()
