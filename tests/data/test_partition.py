from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.data.partition import limit, partition, quotas, subset
from harness.data.split import Split
from harness.errors import UserError

LABELS = ("a", "b", "c")


def split_of(labels: list[int], name: str = "pool") -> Split:
    ids = tuple(f"{name}-{i}" for i in range(len(labels)))
    return Split(name, ids, ids, None, np.array(labels, dtype=np.int64))


def own_groups(split: Split) -> np.ndarray:
    return np.arange(len(split))


ROWS = st.lists(st.integers(0, 2), min_size=12, max_size=80)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=5).filter(any), st.data())
def test_quotas_are_exact_and_within_one_row_of_the_share(counts, data):
    total = data.draw(st.integers(0, sum(counts)))
    counts = np.array(counts)
    rows = quotas(counts, total)
    assert rows.sum() == total
    assert (abs(rows - counts * total / counts.sum()) < 1).all()
    assert (rows <= counts).all()


@settings(deadline=None)
@given(ROWS, st.data())
def test_partition_is_exact_stratified_and_keeps_groups_apart(labels, data):
    pool = split_of(labels)
    groups = np.array(data.draw(st.lists(st.integers(0, 60), min_size=len(labels), max_size=len(labels))))
    sizes = {"real_small": data.draw(st.integers(1, 6)), "test": data.draw(st.integers(1, 6)), "real_large": None}
    try:
        parts = partition(pool, sizes, groups, LABELS, "tiny")
    except UserError:
        assume(False)
    owner = {id_: name for name, part in parts.items() for id_ in part.ids}
    assert len(owner) == sum(map(len, parts.values()))
    for group in np.unique(groups):
        members = [pool.ids[i] for i in np.flatnonzero(groups == group)]
        assert len({owner[id_] for id_ in members if id_ in owner}) <= 1
    shares = np.bincount(pool.labels, minlength=3) / len(pool)
    for name in ("real_small", "test"):
        assert len(parts[name]) == sizes[name]
        assert (abs(np.bincount(parts[name].labels, minlength=3) - shares * sizes[name]) < 1).all()


@given(ROWS)
def test_without_groups_every_row_is_in_one_part(labels):
    pool = split_of(labels)
    parts = partition(pool, {"validation": 3, "test": 5, "real_large": None}, own_groups(pool), LABELS, "tiny")
    assert sorted(id_ for part in parts.values() for id_ in part.ids) == sorted(pool.ids)
    assert {name: part.name for name, part in parts.items()} == {name: name for name in parts}


def test_a_training_parts_size_does_not_change_the_test_rows():
    pool = split_of([0, 1, 2] * 30)
    one = partition(pool, {"real_small": 5, "test": 9}, own_groups(pool), LABELS, "tiny")
    two = partition(pool, {"real_small": 50, "test": 9}, own_groups(pool), LABELS, "tiny")
    assert one["test"].digest == two["test"].digest
    other = partition(pool, {"test": 9}, own_groups(pool), LABELS, "another")
    assert other["test"].digest != one["test"].digest


def test_too_few_distinct_rows():
    pool = split_of([0] * 10 + [1] * 10)
    groups = np.array([0] * 10 + list(range(1, 11)))
    with pytest.raises(UserError) as error:
        partition(pool, {"test": 4}, groups, ("yes", "no"), "tiny")
    assert str(error.value) == (
        "splits.test: needs 2 rows of 'yes', but pool 'pool' has only 1 left, near-duplicates counted once. "
        "Ask for fewer rows."
    )


@given(ROWS, st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 3))
def test_subsets_are_nested_and_stratified(labels, one, two, seed):
    split = split_of(labels)
    small, large = (subset(split, fraction, seed) for fraction in sorted((one, two)))
    assert set(small.ids) <= set(large.ids)
    whole, part = (np.bincount(rows.labels, minlength=3) for rows in (split, small))
    expected = min(one, two) * whole
    assert (abs(part - expected) <= np.where(expected < 0.5, 1, 0.5 + 1e-9)).all()
    assert ((part > 0) == (whole > 0)).all()
    assert list(small.ids) == sorted(small.ids, key=split.ids.index)


def test_subset_depends_on_the_seed_and_nothing_else():
    split = split_of([0, 1, 2] * 40)
    assert subset(split, 0.2, 1).digest == subset(split, 0.2, 1).digest
    assert subset(split, 0.2, 1).digest != subset(split, 0.2, 2).digest
    assert subset(split, 1.0, 1) is split


@given(ROWS, st.integers(1, 90))
def test_limit(labels, rows):
    split = split_of(labels)
    part = limit(split, rows)
    assert len(part) == min(rows, len(split))
    assert part.digest == limit(split, rows).digest
    expected = np.bincount(split.labels, minlength=3) * len(part) / len(split)
    assert (abs(np.bincount(part.labels, minlength=3) - expected) < 1).all()
