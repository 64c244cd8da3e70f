"""A run from Python: of a user's own task, in a call."""

import signal
from typing import Any

from deq_jax.training.errors import UserError
from deq_jax.training.loading import Run, load
from deq_jax.training.process.compilation import told_of_memory
from deq_jax.training.run import run
from deq_jax.training.settings.given import settled
from deq_jax.training.settings.settings import Settings
from deq_jax.training.task import Task


def fit(task: Task, settings: Settings | None = None, *, quiet: bool = False, **changes: Any) -> Run:
    """Train a task of your own, or go on with its training: what ``train.py`` does for a preset, for any task.

    It shows its progress, and writes a folder: every setting, the machine, a line of metrics for every step and every
    evaluation, curves, and checkpoints. The same call again goes on at the very step where the last one stopped,
    however it did, and at the end of a finished run gives what was trained. On a CPU the result is that of an
    uninterrupted run, to the last bit.

    Ctrl-C and a request to end come into effect after the step at hand, behind a checkpoint.

    Args:
        task: what is trained: data, model and loss.
        settings: how; a [`deq_jax.training.Settings`][].
        quiet: say nothing but what is wrong.
        **changes: what is to be other than in ``settings``, or than its defaults: ``out``, the folder of the run,
            ``epochs``, ``batch_size``, … A group may be a dictionary of what is to change in it:
            ``optimizer={"learning_rate": 1e-2}``.

    Returns:
        The trained model and the account of its training, a [`deq_jax.training.Run`][].

    Raises:
        UserError: the task, a setting or the folder is not what it should be; says what was given, what was expected,
            and what to do. A folder that holds another run is left as it is.
        NonFiniteLossError: a UserError, too: training diverged. The last good checkpoint stays.
        KeyboardInterrupt: Ctrl-C, once the checkpoint is written.
    """
    if not isinstance(task, Task):
        raise UserError(f"fit was given a {type(task).__name__}; expected a training.Task(data=…, model=…, loss=…).")
    settings = settled(settings, changes)
    with told_of_memory("batch_size, model or solver.m in another folder"):
        next_steps = [f'training.load("{settings.out}", task)']
        status = run(lambda: task, settings, is_quiet=quiet, next_steps=next_steps)
    if status:
        # As it would have come into effect without the training.
        signal.raise_signal(status - 128)
    return load(settings.out, task)
