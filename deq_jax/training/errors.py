"""What can go wrong through no fault of the program, said in one or two lines."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in what was asked for: says what was given, what was expected, and what to do. Exit status 2."""

    status = 2


class NonFiniteLossError(UserError):
    """Training diverged. Exit status 1, since the command line was fine."""

    status = 1


@contextmanager
def reported_errors() -> Iterator[None]:
    """Ends the program on a `UserError` with its message on stderr and its exit status, without a traceback."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
