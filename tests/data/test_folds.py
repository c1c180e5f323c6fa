"""Folds: every row in one, classes shared out evenly, near-duplicates together, the same again for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.folds import Fold, fold_numbers, inside_fold, outside_fold
from harness.data.selection import select, select_scored
from harness.data.split import Split
from harness.errors import TrialError


def make(labels, texts=None, name="generated"):
    """Rows with these labels, and texts without anything in common."""
    ids = tuple(f"{name}-{i}" for i in range(len(labels)))
    return Split(name, ids, tuple(texts or (f"text {word(i)}" for i in range(len(labels)))), None, np.array(labels))


def word(number):
    """A word of its own for every number below 676, without digits: numbers are all the same to near-duplicates."""
    return chr(97 + number // 26) + chr(97 + number % 26)


@settings(deadline=None, max_examples=50)
@given(labels=st.lists(st.integers(0, 3), min_size=10, max_size=60), folds=st.integers(2, 10), seed=st.integers(0, 99))
def test_folds_differ_by_at_most_one_row_of_a_class(labels, folds, seed):
    numbers = fold_numbers(make(labels), folds, seed)
    counts = np.array([np.bincount(np.array(labels)[numbers == fold], minlength=4) for fold in range(folds)])
    assert counts.sum() == len(labels)
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 1
    assert counts.sum(axis=1).min() >= 1


def test_near_duplicates_stay_together():
    texts = [
        f"{word(i // 4)} was the day number {i} of {word(i // 4)}" for i in range(40)
    ]  # ten texts, four times each
    numbers = fold_numbers(make([i % 2 for i in range(40)], texts), 5, 0)
    assert (numbers.reshape(10, 4) == numbers.reshape(10, 4)[:, :1]).all()
    assert np.bincount(numbers).tolist() == [8] * 5


def test_the_seed_alone_decides():
    rows = make([0, 1] * 20)
    first = fold_numbers(rows, 4, 0)
    assert np.array_equal(first, fold_numbers(rows, 4, 0))
    assert not np.array_equal(first, fold_numbers(rows, 4, 1))


def test_a_fold_and_the_rest_are_all_rows():
    rows = make([0, 1, 2] * 10)
    seen = []
    for number in range(3):
        fold = Fold(number=number, of=3)
        inside, outside = inside_fold(rows, fold, 7), outside_fold(rows, fold, 7)
        assert sorted((*inside.ids, *outside.ids)) == sorted(rows.ids)
        seen += inside.ids
    assert sorted(seen) == sorted(rows.ids)


def test_folds_of_a_share():
    """The share is drawn first: the rows of a fold and the others are together those of the share."""
    splits = {"real_small": make([0, 1] * 20, name="real_small")}
    fold = Fold(number=1, of=4)
    share = select(("real_small",), splits, 0.5, 3)
    trained, scored = (
        select(("real_small",), splits, 0.5, 3, fold),
        select_scored(("real_small",), splits, 0.5, 3, fold),
    )
    assert sorted((*trained.ids, *scored.ids)) == sorted(share.ids)
    assert len(scored) == 5
    assert select_scored(("real_small",), splits, 0.5, 3, None).ids == share.ids


def test_fewer_different_rows_than_folds():
    with pytest.raises(TrialError) as caught:
        fold_numbers(make([0, 1, 0, 1], ["the same text"] * 4), 2, 0)
    assert str(caught.value) == (
        "generated: expected at least 2 different rows for 2 folds, found 1 groups of near-duplicates"
    )
