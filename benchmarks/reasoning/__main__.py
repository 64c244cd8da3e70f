"""Compares one cell as an equilibrium with what it could be instead: python -m benchmarks.reasoning PUZZLE.

Trains every contestant with every seed, as far as it is not trained yet, and measures: answers over difficulty and over
evaluations, from several starts, and what a residual tells. Writes results.json and PUZZLE.png into --out, and prints
the tables in Markdown.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.reasoning.contestants import CONTESTANTS, PUZZLES, Puzzle, configured
from benchmarks.reasoning.measures import Network, agreement, best_of, calibrated
from benchmarks.reasoning.picture import draw
from benchmarks.reasoning.tables import tables
from deq_jax.tasks.presets import train
from deq_jax.training.disk import metrics
from deq_jax.training.process.compilation import use_persistent_cache

_STARTS = (1, 2, 3, 4)


def measured(network: Network, puzzle: Puzzle, *, is_equilibrium: bool) -> dict[str, Any]:
    """All that is asked of one run."""
    found: dict[str, Any] = {"exact": {}, "evaluations": {}, "over_evaluations": {}}
    for difficulty in puzzle.harder:
        solved = network.solve(network.problems(difficulty, puzzle.problems), puzzle.far)
        found["exact"][difficulty] = float(solved.exact.mean())
        found["evaluations"][difficulty] = float(solved.evaluations.mean())
    middle = network.problems(puzzle.middle, puzzle.problems)
    for evaluations in puzzle.evaluations:
        solved = network.solve(middle, evaluations)
        found["over_evaluations"][evaluations] = float(solved.exact.mean())
    if is_equilibrium:
        found |= _of_equilibria(network, puzzle)
    return found


def _of_equilibria(network: Network, puzzle: Puzzle) -> dict[str, Any]:
    """Path independence, restarts, and whether a residual tells wrong answers, where both kinds are to be had."""
    hardest = network.problems(puzzle.harder[-1], puzzle.problems)
    zero = network.solve(hardest, puzzle.far)
    others = [network.solve(hardest, puzzle.far, start) for start in _STARTS]
    same, cosine = agreement(zero, others[0])
    found: dict[str, Any] = {"same_answer": same, "cosine": cosine, "restarts": best_of([zero, *others])}
    for evaluations in puzzle.evaluations[::-1]:
        # Cut short: some are done by then, and some are not.
        calibration = calibrated(network.solve(network.problems(puzzle.middle, puzzle.problems), evaluations))
        if calibration is not None:
            found["calibration"] = {"max_iter": evaluations, **calibration._asdict()}
            break
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reasoning", description=__doc__)
    parser.add_argument("puzzle", choices=PUZZLES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument(
        "--epochs", type=int, help="of the equilibrium, the others' in proportion; the preset's if not given"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/reasoning"))
    given = parser.parse_args()
    use_persistent_cache()
    puzzle, rows = PUZZLES[given.puzzle], []
    for seed in given.seeds:
        for contestant in given.contestants:
            config = configured(given.puzzle, contestant, seed, given.out, given.epochs)
            status = train(config)
            if status:
                raise SystemExit(status)
            lines = metrics.read(config.out / "metrics.jsonl")
            steps = [line["step_seconds"] for line in lines if line["kind"] == "train"]
            parameters = json.loads((config.out / "environment.json").read_text())["parameters"]
            row = {"contestant": contestant, "seed": seed, "parameters": parameters, "minutes": sum(steps) / 60}
            row |= measured(Network(config), puzzle, is_equilibrium=contestant == "equilibrium")
            rows.append(row)
            (given.out / f"{given.puzzle}.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(tables(given.puzzle, rows))
    draw(given.puzzle, rows, given.out / f"{given.puzzle}.png")


if __name__ == "__main__":
    main()
