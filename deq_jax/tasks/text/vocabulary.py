"""Text as numbers and back: bytes, or frequent pieces and bytes for all others."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from deq_jax.tasks.text.sources import File
from deq_jax.training.errors import UserError

Numbers = Integer[np.ndarray, " n"]

_PIECES = re.compile(r" ?\w+|\n[ \t]*|[^\w\s]|\s")
"""Words with the blank before them, lines' ends with the next one's indent, single signs: together all of a text."""


@dataclass(frozen=True)
class Vocabulary:
    """What can be foretold: 256 bytes, then these pieces; without any, text is read as bytes, of whatever kind."""

    pieces: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many there are to choose from."""
        return 256 + len(self.pieces)

    def encoded(self, files: Iterable[File]) -> Numbers:
        """The numbers of all files' text, one after the other.

        Raises:
            UserError: one of them is not in UTF-8, or binary, and there are pieces.
        """
        if not self.pieces:
            return np.frombuffer(b"".join(file.content for file in files), np.uint8)
        known = {piece: [256 + number] for number, piece in enumerate(self.pieces)}
        numbers: list[int] = []
        for file in files:
            for piece in _PIECES.findall(_decoded(file)):
                if piece not in known:
                    known[piece] = list(piece.encode())
                numbers += known[piece]
        return np.array(numbers, np.int32)

    def sizes(self) -> Numbers:
        """Bytes of each."""
        return np.array([1] * 256 + [len(piece.encode()) for piece in self.pieces])

    def decoded(self, numbers: Numbers | Iterable[int]) -> bytes:
        """The text of these numbers."""
        return b"".join(self.pieces[n - 256].encode() if n >= 256 else bytes([n]) for n in map(int, numbers))


def frequent(files: Sequence[File], size: int) -> Vocabulary:
    """The most frequent pieces of two bytes or more, at most so many; of equally frequent ones the first in order.

    Raises:
        UserError: a file is not in UTF-8, or binary.
    """
    counts = Counter(piece for file in files for piece in _PIECES.findall(_decoded(file)) if len(piece.encode()) > 1)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Vocabulary(tuple(piece for piece, _ in ranked[:size]))


def _decoded(file: File) -> str:
    try:
        text = file.content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{file.name} is not in UTF-8 ({error.reason} at byte {error.start:,}); {_REMEDY}") from error
    if "\0" in text:
        raise UserError(f"{file.name} is binary: it holds zero bytes; {_REMEDY}")
    return text


_REMEDY = "take --data.unit bytes, which reads any file, or leave that file out."
