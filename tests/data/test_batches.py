from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.data.batches import (
    SMALLEST,
    WINDOW,
    epoch_batches,
    evaluation_batches,
    longest_first,
    training_batches,
)

lengths_of = st.lists(st.integers(1, 60), min_size=1, max_size=200).map(np.array)
sizes, seeds = st.integers(1, 40), st.integers(0, 2**32)


@given(lengths_of, sizes, seeds, st.integers(0, 3))
def test_an_epoch_has_every_row_once(lengths, size, seed, epoch):
    batches = epoch_batches(lengths, size, seed, epoch)
    assert Counter(np.concatenate(batches).tolist()) == Counter(range(len(lengths)))
    full, rest = divmod(len(lengths), size)
    assert sorted(map(len, batches)) == ([rest] if rest else []) + [size] * full
    again = epoch_batches(lengths, size, seed, epoch)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


@given(lengths_of, sizes, seeds, st.integers(1, 30))
def test_a_stream_is_its_epochs_one_after_the_other(lengths, size, seed, steps):
    stream = list(training_batches(lengths, size, seed, steps))
    per_epoch = -(-len(lengths) // size)
    assert len(stream) == steps
    assert [epoch for epoch, _ in stream] == [step // per_epoch for step in range(steps)]
    for step, (epoch, rows) in enumerate(stream):
        assert np.array_equal(rows, epoch_batches(lengths, size, seed, epoch)[step % per_epoch])


@given(lengths_of, sizes, seeds, st.integers(1, 20), st.integers(0, 20))
def test_a_stream_can_be_taken_in_parts(lengths, size, seed, steps, first):
    whole = list(training_batches(lengths, size, seed, steps))
    parts = training_batches(lengths, size, seed, steps)
    taken = [*islice(parts, min(first, steps)), *islice(parts, steps)]
    assert len(taken) == steps
    assert all(a == b and np.array_equal(x, y) for (a, x), (b, y) in zip(whole, taken, strict=True))
    longer = list(islice(training_batches(lengths, size, seed, steps + 5), steps))
    assert all(np.array_equal(x, y) for (_, x), (_, y) in zip(whole, longer, strict=True))


@given(lengths_of, sizes)
def test_evaluation_has_every_row_once_longest_first(lengths, size):
    batches = evaluation_batches(lengths, size)
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert all(SMALLEST * size <= len(batch) <= size for batch in batches[:-1])
    assert np.all(np.diff(lengths[order]) <= 0)


def test_evaluation_batches_of_a_long_tail_have_little_padding():
    lengths = np.sort(np.random.Generator(np.random.PCG64(0)).geometric(0.05, 500) + 5)
    padding = {}
    for name, batches in {
        "ours": evaluation_batches(lengths, 64),
        "equal": [np.arange(500)[::-1][i : i + 64] for i in range(0, 500, 64)],
    }.items():
        padding[name] = 1 - lengths.sum() / sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padding["ours"] < padding["equal"] / 3, padding


def test_epochs_and_seeds_differ():
    lengths = np.random.Generator(np.random.PCG64(0)).integers(5, 60, 200)
    orders = [
        np.concatenate(epoch_batches(lengths, 16, seed, epoch)).tolist() for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_batches_hold_rows_of_similar_length_in_random_order():
    lengths = np.random.Generator(np.random.PCG64(0)).integers(5, 120, 32 * WINDOW * 2)
    batches = epoch_batches(lengths, 32, 0, 0)
    longest = np.array([lengths[batch].max() for batch in batches])
    padding = sum(int((lengths[batch].max() - lengths[batch]).sum()) for batch in batches)
    assert padding < 0.1 * lengths.sum(), "at random it is about 0.9"
    assert len(set(np.sign(np.diff(longest)))) > 1, "lengths neither only rise nor only fall"
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.5


def test_lengths_do_not_drift_within_an_epoch():
    """Over many seeds, a batch of any place in an epoch has rows of the mean length."""
    lengths = np.random.Generator(np.random.PCG64(0)).geometric(0.05, 40 * WINDOW) + 5  # more than one window
    by_place = np.array([
        [lengths[batch].mean() for batch in epoch_batches(lengths, 16, seed, 0)] for seed in range(200)
    ])  # fmt: skip
    standard_error = by_place.std() / np.sqrt(len(by_place))
    assert np.abs(by_place.mean(0) - lengths.mean()).max() < 4 * standard_error
    place = np.arange(by_place.shape[1])
    drift = [np.corrcoef(place, means)[0, 1] for means in by_place]
    assert abs(np.mean(drift)) < 4 * np.std(drift) / np.sqrt(len(drift))


@given(lengths_of, sizes)
def test_longest_first(lengths, size):
    rows = np.arange(len(lengths))[::2]
    batches = longest_first(rows, lengths, size)
    assert sorted(np.concatenate(batches).tolist()) == rows.tolist()
    assert all(len(batch) == size for batch in batches[:-1])
    assert np.all(np.diff(lengths[np.concatenate(batches)]) <= 0)
