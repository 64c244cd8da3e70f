"""The comparison in Markdown."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Row = dict[str, Any]


def tables(puzzle: str, rows: Sequence[Row]) -> str:
    """All tables of a puzzle, of runs as results.json has them."""
    groups = grouped(rows)
    seeds = sorted({row["seed"] for row in rows})
    parts = [
        f"### {puzzle}, seeds {', '.join(map(str, seeds))}",
        _table(
            ["exact, %, at a difficulty of", "parameters", "minutes", *rows[0]["exact"]],
            (
                [
                    name,
                    f"{group[0]['parameters']:,}",
                    spread([row["minutes"] for row in group], 1),
                    *_columns(group, "exact"),
                ]
                for name, group in groups.items()
            ),
        ),
        _table(
            ["exact, %, with evaluations of at most", *rows[0]["over_evaluations"]],
            ([name, *_columns(group, "over_evaluations")] for name, group in groups.items()),
        ),
    ]
    equilibria = groups.get("equilibrium", [])
    if equilibria:
        parts.append(_of_equilibria(equilibria))
    return "\n\n".join(parts)


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The runs of each contestant."""
    names = dict.fromkeys(row["contestant"] for row in rows)
    return {name: [row for row in rows if row["contestant"] == name] for name in names}


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The mean, and the sample standard deviation where there are several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _of_equilibria(rows: Sequence[Row]) -> str:
    head = ["the equilibrium's, at the hardest", *(f"seed {row['seed']}" for row in rows)]
    lines: list[tuple[str, Callable[[Row], str]]] = [
        ("evaluations at each difficulty", lambda row: ", ".join(f"{n:.0f}" for n in row["evaluations"].values())),
        ("same answer from zeros and from a random start, %", lambda row: f"{100 * row['same_answer']:.1f}"),
        ("cosine of the two states", lambda row: f"{row['cosine']:.4f}"),
        ("exact, %, of five starts the one of the lowest residual", lambda row: f"{100 * row['restarts']:.1f}"),
        ("wrong answers refused by their residual", _calibration),
    ]
    return _table(head, ([name, *(said(row) for row in rows)] for name, said in lines))


def _calibration(row: Row) -> str:
    found = row.get("calibration")
    if found is None:
        return "none are wrong, or all"
    return (
        f"{found['found']:.0%} by a threshold of {found['threshold']:.1e}, and {found['refused']:.0%} of the right, "
        f"cut off at {found['max_iter']}"
    )


def _columns(group: Sequence[Row], name: str) -> list[str]:
    return [spread([100 * row[name][key] for row in group]) for key in group[0][name]]


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    head = [str(name) for name in head]
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
