"""What can go wrong through no fault of the program, said in one or two lines."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in what was asked for: says what was given, what was expected, and what to do. Exit status 2."""

    status = 2


class NonFiniteLossError(UserError):
    """Training diverged. Exit status 1, since the command line was fine."""

    status = 1


def reason(error: OSError) -> str:
    """What the file system says, and of which file where it says that: Is a directory: runs/mine/metrics.jsonl."""
    # Of a file that was to take another's place, that other's name means more.
    name = error.filename2 if error.filename2 is not None else error.filename
    return (error.strerror or str(error)) + ("" if name is None else f": {os.fsdecode(name)}")


@contextmanager
def reported_errors() -> Iterator[None]:
    """Ends the program on a `UserError` with its message on stderr and its exit status, without a traceback.

    What the file system refuses, and nothing before has put into better words, is said in its own. Exit status 2.
    """
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except OSError as error:
        print(f"error: {reason(error)}.", file=sys.stderr)
        sys.exit(UserError.status)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print("error: there is not enough memory; a smaller batch takes less.", file=sys.stderr)
        sys.exit(UserError.status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _is_out_of_memory(error: Exception) -> bool:
    """Of Python, of XLA on any device, or of a system that has none left for a thread."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "start new thread" in str(error)
