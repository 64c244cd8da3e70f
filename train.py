"""Trains a deep equilibrium model: python train.py PRESET [--field value ...] [--quiet].

As one of several processes: ... --coordinator HOST:PORT --processes N --process K.
"""

import os
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Before anything else is imported: a library in the midst of its own imports may swallow Python's exception.
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"interrupted\n"), os._exit(130)))

from deq_jax.tasks.presets import PRESETS, train
from deq_jax.training.devices.places import without_flags
from deq_jax.training.errors import ended_for_certain, reported_errors
from deq_jax.training.process.cli import QUIET, parse, without_switch
from deq_jax.training.process.signals import interrupts_end_at_once
from deq_jax.training.process.terminal import SECONDS_OF_PATIENCE, lasting_output

if __name__ == "__main__":
    with ended_for_certain(), lasting_output(SECONDS_OF_PATIENCE), interrupts_end_at_once(), reported_errors():
        arguments, is_quiet = without_switch(sys.argv[1:], QUIET)
        arguments, flags = without_flags(arguments)
        sys.exit(train(parse(arguments, PRESETS), is_quiet=is_quiet, flags=flags))
