"""Images that are decoded as they are asked for, the next batches' in advance."""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from jaxtyping import Int

from deq_jax.tasks.images.data.dataset import Examples
from deq_jax.tasks.images.data.form import Pixels

_MOST_AHEAD = 4
Rows = Int[np.ndarray, " rows"]


class Stream:
    """A source of a task's data: which rows come when is the run's to say, so that a run goes on at its very batch.

    Threads decode: Pillow lets go of Python's lock while it reads, decodes and resizes. Each takes its share of a batch
    at once, since of small images finding one, and handing it over, cost more than decoding it.

    Args:
        read: the numbers of some images → the images and their labels; called by several threads.
        size: how many images there are.
        workers: threads that decode.
    """

    def __init__(self, read: Callable[[Rows], list[tuple[Pixels, int]]], size: int, workers: int):
        self._read = read
        self._shares = workers
        self._size = size
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="images")
        self._ahead: OrderedDict[bytes, list[Future]] = OrderedDict()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, rows: Rows | slice) -> Examples:
        """The images of these rows, and their labels; raises what reading one of them raises."""
        numbers = np.arange(self._size)[rows]
        pending = self._ahead.pop(numbers.tobytes(), None) or self._begun(numbers)
        images, labels = zip(*(sample for share in pending for sample in share.result()), strict=True)
        return Examples(np.stack(images), np.array(labels, np.int32))

    def expect(self, rows: Rows) -> None:
        """Begins to read rows that will be asked for, in this order; those expected longest ago are given up."""
        numbers = np.arange(self._size)[rows]
        if numbers.tobytes() in self._ahead:
            return
        self._ahead[numbers.tobytes()] = self._begun(numbers)
        while len(self._ahead) > _MOST_AHEAD:
            _, abandoned = self._ahead.popitem(last=False)
            for share in abandoned:
                share.cancel()

    def _begun(self, numbers: Rows) -> list[Future]:
        shares = np.array_split(numbers, min(self._shares, len(numbers)) or 1)
        return [self._workers.submit(self._read, share) for share in shares]
