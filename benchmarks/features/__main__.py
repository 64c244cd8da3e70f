"""Ask every library in an environment of its own, and print the answers as a Markdown table."""

import json
import subprocess
from pathlib import Path

from benchmarks.environments import ROOT, UnavailableError, jax_peers, own, torch_peers
from benchmarks.features.questions import QUESTIONS

ASKED = {
    "deq_jax": (own, "in_jax"),
    "torchdeq": (torch_peers, "in_torch"),
    "jaxopt": (jax_peers, "in_jax"),
    "optimistix": (jax_peers, "in_jax"),
    "chapter": (torch_peers, "in_torch"),
}


def ask(library: str, python: Path, module: str) -> dict[str, bool]:
    """One library's answers."""
    command = [python, "-m", f"benchmarks.features.{module}", library]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)


def table(answers: dict[str, dict[str, bool]]) -> str:
    """Questions down, libraries across."""
    lines = ["| | " + " | ".join(answers) + " |", "|---|" + ":-:|" * len(answers)]
    for name, question in QUESTIONS.items():
        marks = ["✓" if given[name] else "–" for given in answers.values()]
        lines.append(f"| {question} | " + " | ".join(marks) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    answers = {}
    for library, (python, module) in ASKED.items():
        try:
            answers[library] = ask(library, python(), module)
        except UnavailableError as error:
            print(f"skipped {library}: {error}")
    print(table(answers))


if __name__ == "__main__":
    main()
