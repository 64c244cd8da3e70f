from typing import NamedTuple

import numpy as np
import pytest

from deq_jax.training.steps.batches import count, epoch_order, eval_batches, taken, train_batch


class Labelled(NamedTuple):
    images: np.ndarray
    labels: np.ndarray


def numbered(n):
    """Samples that can be told apart by their label."""
    labels = np.arange(n, dtype=np.int32)
    return Labelled(np.broadcast_to(labels[:, None, None, None], (n, 2, 2, 1)).astype(np.uint8), labels)


def test_rows_are_taken_of_every_array():
    examples = {"a": np.arange(6).reshape(3, 2), "b": (np.arange(3.0),)}
    rows = taken(examples, np.array([2, 0]))
    np.testing.assert_array_equal(rows["a"], [[4, 5], [0, 1]])
    np.testing.assert_array_equal(rows["b"][0], [2.0, 0.0])
    assert (count(examples), count(rows), count(taken(examples, slice(9)))) == (3, 2, 3)


def test_an_epochs_order_is_a_permutation_that_seed_and_epoch_settle():
    order = epoch_order(3, 5, 1000)
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(order, epoch_order(3, 5, 1000))
    for other in (epoch_order(3, 6, 1000), epoch_order(4, 5, 1000), epoch_order(5, 3, 1000)):
        assert (order != other).mean() > 0.9
    # Pinned: a run that is continued under a later version must read on in the same order.
    assert epoch_order(0, 0, 8).tolist() == [2, 4, 3, 6, 5, 0, 1, 7]


def test_batch_k_of_epoch_e_needs_no_batch_before_it():
    examples = numbered(23)
    in_order = [train_batch(examples, 7, step, 5) for step in range(12)]
    for step in (11, 4, 0, 7):
        batch = train_batch(examples, 7, step, 5)
        np.testing.assert_array_equal(batch.labels, in_order[step].labels)
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0], batch.labels)


def test_a_training_epoch_reads_no_sample_twice_and_leaves_the_incomplete_batch_out():
    examples = numbered(23)
    batches = [train_batch(examples, 7, step, 5) for step in range(8)]
    for epoch in (batches[:4], batches[4:]):
        labels = np.concatenate([batch.labels for batch in epoch])
        assert len(set(labels.tolist())) == 20
    assert {batch.images.shape for batch in batches} == {(5, 2, 2, 1)}


@pytest.mark.parametrize("n", [1, 5, 20, 23])
def test_evaluation_counts_every_sample_exactly_once(n):
    examples = numbered(n)
    batches = list(eval_batches(examples, 5))
    counted = np.concatenate([batch.examples.labels[batch.mask] for batch in batches])
    np.testing.assert_array_equal(counted, np.arange(n))
    assert {batch.examples.images.shape for batch in batches} == {(5, 2, 2, 1)}
    np.testing.assert_array_equal(batches[-1].examples.labels[~batches[-1].mask], 5 * ((n - 1) // 5))


class Listening:
    """A source that reads ahead."""

    def __init__(self, n):
        self.n, self.expected = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, rows):
        assert rows.tolist() in self.expected
        return rows

    def expect(self, rows):
        self.expected.append(rows.tolist())


def test_a_source_that_reads_ahead_is_told_of_the_rows_to_come():
    source = Listening(10)
    told = [train_batch(source, 0, step, 3).tolist() for step in range(6)]
    assert [rows for k, rows in enumerate(source.expected) if rows not in source.expected[:k]][:6] == told
    source = Listening(10)
    batches = [batch.examples.tolist() for batch in eval_batches(source, 4)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 8, 8]]
    assert source.expected[:3] == batches


class Endless:
    """A source that gives what it is asked for."""

    is_endless = True

    def __len__(self):
        return 7

    def __getitem__(self, rows):
        return rows


def test_a_source_without_an_end_gives_every_sample_once():
    read = [train_batch(Endless(), 0, step, 3) for step in range(6)]  # two batches an epoch
    assert [sorted(np.concatenate(read[i : i + 2]) // 7) for i in (0, 2, 4)] == [[0] * 6, [1] * 6, [2] * 6]
    assert len(set(np.concatenate(read))) == 18
    assert [rows.tolist() for rows in read] == [train_batch(Endless(), 0, step, 3).tolist() for step in range(6)]
