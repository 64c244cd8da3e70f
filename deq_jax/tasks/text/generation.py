"""Text from a trained network, position by position: each is an equilibrium of its own, behind those before it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from deq_jax.nn.sequence.memory import State
from deq_jax.tasks.text.bodies import Memories
from deq_jax.tasks.text.config import Config
from deq_jax.tasks.text.model import LanguageModel
from deq_jax.tasks.text.task import OPENER, without_text
from deq_jax.tasks.text.vocabulary import Vocabulary
from deq_jax.training.disk.folder import read_config, require_task
from deq_jax.training.loading import restored
from deq_jax.training.steps.model import opened


class Writer(NamedTuple):
    """A network with the weights of a checkpoint, solved as the run's evaluations are."""

    model: LanguageModel
    vocabulary: Vocabulary
    positions: int
    """How many it has learned to look over."""


class Read(NamedTuple):
    """All that is kept of a text behind its last position, of which it knows what may follow."""

    memories: Memories
    z: Float[Array, "1 1 features"]
    logits: Float[Array, " vocabulary"]
    evaluations: Int[Array, ""]
    residual: Float[Array, ""]


class Written(NamedTuple):
    """A number that was drawn, and what the solve took that told what might follow it."""

    number: int
    evaluations: int
    residual: float


def load(run: Path, checkpoint: str | int = "last") -> Writer:
    """The network of a run; the text that it was trained on is not read.

    Raises:
        UserError: it is no run on text, is damaged, or has no such checkpoint.
    """
    require_task(run, OPENER, "python -m deq_jax.evaluate tells what it achieves")
    config = read_config(run, Config)
    task, vocabulary = without_text(config, run)
    model, state = restored(run, task, config, checkpoint)
    positions = config.model.memory + config.data.length
    return Writer(opened(model, training=False)(*state.evaluated), vocabulary, positions)


def nothing_read(writer: Writer) -> Read:
    """Before a text begins."""
    model = writer.model
    logits = jnp.zeros(len(writer.vocabulary))
    z: State = jnp.zeros((1, 1, model.features))
    return Read(model.beginning(1, writer.positions - 1), z, logits, jnp.zeros((), jnp.int32), jnp.zeros(()))


def read_on(model: LanguageModel, before: Read, number: Int[Array, ""], is_warm: bool = True) -> Read:
    """The text with one more number at its end, whose solve starts from the equilibrium before it, or from zeros.

    Attention looks back alone, so that the equilibrium of a position behind those before it is what it is in the
    equilibrium of all of them.
    """
    inputs = model.embedded(number[None, None])
    segment = model.body(inputs, before.memories, (), before.z if is_warm else None, None)
    solution = segment.solution
    logits = model.told(solution.value)[0, 0]
    return Read(segment.memories, solution.value, logits, solution.iterations[0], solution.residual[0])


def written(
    writer: Writer, prompt: Sequence[int], length: int, *, temperature: float = 0.8, seed: int = 0, is_warm: bool = True
) -> Iterator[Written]:
    """So many numbers that follow a prompt of one or more, each drawn from ``softmax(logits / temperature)``.

    At a temperature of 0 it is the likeliest.
    """

    @jax.jit
    def follow(before: Read, number: Int[Array, ""]) -> Read:
        return read_on(writer.model, before, number, is_warm)

    @jax.jit
    def draw(logits: Float[Array, " vocabulary"], key: Key[Array, ""]) -> Int[Array, ""]:
        drawn = jax.random.categorical(key, logits / (temperature or 1.0))
        return drawn if temperature else jnp.argmax(logits)

    text = nothing_read(writer)
    for number in prompt:
        text = follow(text, jnp.int32(number))
    for key in jax.random.split(jax.random.key(seed), length):
        number = int(draw(text.logits, key))
        text = follow(text, jnp.int32(number))
        yield Written(number, int(text.evaluations), float(text.residual))
