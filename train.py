"""Trains a deep equilibrium model: python train.py PRESET [--field value ...] [--quiet].

As one of several processes: ... --coordinator HOST:PORT --processes N --process K.
"""

import sys

from deq_jax.tasks.presets import PRESETS, train
from deq_jax.training.devices.places import without_flags
from deq_jax.training.errors import reported_errors
from deq_jax.training.process.cli import QUIET, parse, without_switch
from deq_jax.training.process.terminal import lasting_output

if __name__ == "__main__":
    with lasting_output(), reported_errors():
        arguments, is_quiet = without_switch(sys.argv[1:], QUIET)
        arguments, flags = without_flags(arguments)
        sys.exit(train(parse(arguments, PRESETS), is_quiet=is_quiet, flags=flags))
