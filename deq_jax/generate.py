"""Goes on with a text: python -m deq_jax.generate RUN --prompt "def " [--length 400] [--temperature 0.8] [--seed 0].

Prints the text as it is written, and then on stderr how many evaluations of the cell a byte or token took. The solve of
each starts from the equilibrium before it; `--start zeros` shows what it takes without.
"""

import codecs
import math
import statistics
import sys
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import tyro

from deq_jax.tasks.text.generation import Written, load, written
from deq_jax.tasks.text.sources import File
from deq_jax.training.errors import UserError, reported_errors
from deq_jax.training.process.cli import parse_function
from deq_jax.training.process.compilation import require_backend, use_persistent_cache
from deq_jax.training.process.signals import interrupts_end_at_once
from deq_jax.training.process.terminal import lasting_output
from deq_jax.training.settings.checks import WHOLE


class _Given(NamedTuple):
    run: Path
    prompt: str
    length: int
    temperature: float
    seed: int
    start: str
    checkpoint: str


def _command(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    prompt: str = "\n",
    length: int = 400,
    temperature: float = 0.8,
    seed: int = 0,
    start: Literal["previous", "zeros"] = "previous",
    checkpoint: Annotated[str, tyro.conf.arg(metavar="best|last|STEP")] = "last",
) -> _Given:
    """Goes on with a text.

    Args:
        run: Folder of the run, the --out of its training.
        prompt: How the text begins.
        length: Bytes, or tokens, to write.
        temperature: 1 draws what follows as likely as the network holds it, less keeps to what is likelier, 0 takes
            the likeliest.
        seed: Settles what is drawn.
        start: Where the solve of a position starts: from the equilibrium before it, or from zeros.
        checkpoint: The weights to use: the last, the best on the test split, or those of a step.
    """
    return _Given(run, prompt, length, temperature, seed, start, checkpoint)


def account(numbers: list[Written], unit: str) -> str:
    """What was written, in a line."""
    count = f"{len(numbers):,} {unit}"
    if not math.isfinite(numbers[0].residual):
        return f"{count}, {numbers[0].evaluations} layers each."
    evaluations = [number.evaluations for number in numbers]
    worst = max(number.residual for number in numbers)
    mean = statistics.mean(evaluations)
    return (
        f"{count}, {mean:.1f} evaluations each ({min(evaluations)} to {max(evaluations)}), residuals up to {worst:.1e}."
    )


def main(arguments: list[str]) -> None:
    """The command line."""
    with reported_errors():
        given = parse_function(_command, arguments, prog="python -m deq_jax.generate")
        if not 1 <= given.length <= WHOLE:
            raise UserError(f"--length must be from 1 to {WHOLE:,}, but is {given.length:,}")
        if not 0 <= given.temperature < math.inf:
            raise UserError(f"--temperature must not be negative, but is {given.temperature:g}")
        if not 0 <= given.seed < 2**32:
            raise UserError(f"--seed must be from 0 to below 2**32, but is {given.seed}")
        require_backend()
        use_persistent_cache()
        writer = load(given.run, given.checkpoint)
        prompt = File("--prompt", given.prompt.encode(errors="surrogateescape"))
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        print(decode(prompt.content), end="", flush=True)
        numbers = []
        for number in written(
            writer,
            writer.vocabulary.encoded([prompt]).tolist(),
            given.length,
            temperature=given.temperature,
            seed=given.seed,
            is_warm=given.start == "previous",
        ):
            numbers.append(number)
            print(decode(writer.vocabulary.decoded([number.number])), end="", flush=True)
        print(decode(b"", True), flush=True)
        print(account(numbers, "tokens" if writer.vocabulary.pieces else "bytes"), file=sys.stderr)


if __name__ == "__main__":
    with lasting_output(), interrupts_end_at_once():
        main(sys.argv[1:])
