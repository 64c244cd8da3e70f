"""Text as a task: its data, loss and evaluation, for a run that knows none."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from deq_jax.gradients.adjoint import Adjoint, Solver
from deq_jax.tasks.text.config import Config
from deq_jax.tasks.text.model import LanguageModel, build_model
from deq_jax.tasks.text.sources import File, read
from deq_jax.tasks.text.vocabulary import Vocabulary, frequent
from deq_jax.tasks.text.windows import Window, Windows, require_long, size, spread
from deq_jax.training.disk import environment
from deq_jax.training.disk.folder import read_config
from deq_jax.training.errors import UserError
from deq_jax.training.settings.settings import Settings
from deq_jax.training.task import Data, Outcome, Task

OPENER = __name__
"""Where a run's task can be opened again, as config.json has it."""


def open_task(config: Config, splits: Iterable[str] = ("train", "test")) -> Task:
    """The task that the settings describe, with these splits of its data.

    Raises:
        UserError: the text cannot be read, is too short, or cannot be tokens.
    """
    data, files = config.data, read(config.data)
    vocabulary = vocabulary_of(config, files["train"])
    texts = {split: require_long(vocabulary.encoded(files[split]), data, split) for split in splits}
    examples: dict[str, Any] = {
        split: Windows(text, data, config.seed) if split == "train" else spread(text, data)
        for split, text in texts.items()
    }
    digest = hashlib.sha256(b"".join(file.content for split in sorted(files) for file in files[split])).hexdigest()
    about = {"text": digest} | ({"vocabulary": list(vocabulary.pieces)} if vocabulary.pieces else {})
    name = f"{data.unit} of {data.source or 'the standard library'}"
    return text_task(config, Data(examples, name=name, unit="windows", about=about), vocabulary)


def text_task(config: Config, data: Data, vocabulary: Vocabulary) -> Task:
    """The task on windows that are there already."""

    def model(solver: Solver, adjoint: Adjoint, rngs: nnx.Rngs) -> LanguageModel:
        return build_model(config.model, config.data, len(vocabulary), solver, adjoint, rngs)

    sizes = jnp.asarray(vocabulary.sizes(), jnp.float32)

    def foretold(model: LanguageModel, window: Window, report: Any) -> Outcome:
        """Cross-entropy of what follows, a position, in nats; and in bits for each byte of it."""
        reading = model(window.tokens, report=report)
        following = jnp.asarray(window.following)
        loss = optax.softmax_cross_entropy_with_integer_labels(reading.logits, following)
        read_bytes = jnp.sum(sizes[following], (1, 2))
        solutions, functions = reading.solutions, reading.functions
        return Outcome(
            jnp.mean(loss, (1, 2)),
            solutions if len(solutions) > 1 else solutions[0],
            functions if functions is None or len(functions) > 1 else functions[0],
            metrics={"bits_per_byte": jnp.sum(loss, (1, 2)) / (jnp.log(2.0) * read_bytes)},
        )

    segments = config.data.segments
    return Task(data, model, foretold, metrics={"bits_per_byte": ""}, best="min", equilibria=segments)


def reopened(run: Path) -> tuple[Task, Settings, Config]:
    """The task of a run, with the test split alone, and how it was trained; raises as `open_task` does."""
    config = read_config(run, Config)
    return open_task(config, ["test"]), config, config


def without_text(config: Config, run: Path) -> tuple[Task, Vocabulary]:
    """The task of a run with no text in it, and its vocabulary, for what needs the model alone.

    Raises:
        UserError: the run does not say what its vocabulary is.
    """
    pieces = environment.latest(run).get("data", {}).get("vocabulary", [])
    if config.data.unit == "tokens" and not pieces:
        raise UserError(f"{run / 'environment.json'} is damaged: it holds no vocabulary.")
    vocabulary = Vocabulary(tuple(pieces))
    none = spread(np.zeros(size(config.data), np.int32), config.data)
    return text_task(config, Data({"test": none}), vocabulary), vocabulary


def of_difficulty(config: Config, difficulty: int) -> Config:
    """There is one difficulty alone; raises UserError."""
    del config
    raise UserError(f"--difficulty {difficulty} goes with runs on puzzles; a text is as hard as it is.")


def of_file(config: Config, path: Path) -> Task:
    """The task with a file to test on, in the vocabulary of the run; raises UserError where it is no such text."""
    vocabulary = vocabulary_of(config, read(config.data)["train"] if config.data.unit == "tokens" else [])
    try:
        text = vocabulary.encoded([File(str(path), path.read_bytes())])
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    windows = spread(require_long(text, config.data, "test"), config.data)
    return text_task(config, Data({"test": windows}, f"{config.data.unit} of {path.name}", "windows"), vocabulary)


def vocabulary_of(config: Config, files: Sequence[File]) -> Vocabulary:
    """What can be foretold after training on these files."""
    return frequent(files, config.data.vocabulary) if config.data.unit == "tokens" else Vocabulary()
