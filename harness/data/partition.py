"""Dividing rows: parts of a pool, smaller versions of a split, nested subsets. All stratified and seeded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from harness.data.split import IntArray, Split
from harness.errors import UserError
from harness.seeds import generator

#: parts choose in this order, so that the size of a training part never changes the test rows
_ORDER = ("test", "validation", "real_small", "real_large", "generated", "noisy")


def quotas(counts: IntArray, total: int) -> IntArray:
    """``total`` rows shared out in proportion to ``counts`` by largest remainder: int64 [classes]."""
    exact = counts * total / counts.sum()
    out: IntArray = np.floor(exact).astype(np.int64)
    missing = total - int(out.sum())
    out[np.argsort(out - exact, kind="stable")[:missing]] += 1
    return out


def partition(
    pool: Split, parts: Mapping[str, int | None], groups: IntArray, labels: tuple[str, ...], stream: str
) -> dict[str, Split]:
    """Divide a pool so that no near-duplicate group has rows in two parts.

    A part of fixed size has exactly that many rows, each class within one row of its share of the pool. It takes
    one row of a near-duplicate group, and the group's other rows are left out: they are in no part. The part
    without a size takes all rows of the groups that remain, in the pool's order.

    Args:
        pool: n rows.
        parts: the number of rows of each part; None for the rest.
        groups: near-duplicate group of each row, int64 [n].
        labels: label names, for messages.
        stream: what the random stream is called, the benchmark's name say.

    Raises:
        UserError: the pool has too few distinct rows of a class.
    """
    order = generator(0, "split", stream).permutation(len(pool))
    first = np.unique(groups[order], return_index=True)[1]
    candidates = order[np.sort(first)]
    waiting = [candidates[pool.labels[candidates] == label] for label in range(len(labels))]
    counts = np.bincount(pool.labels, minlength=len(labels))
    out: dict[str, Split] = {}
    for name in sorted((name for name, size in parts.items() if size is not None), key=_ORDER.index):
        chosen = []
        for label, wanted in enumerate(quotas(counts, parts[name] or 0)):
            if wanted > len(waiting[label]):
                raise UserError(
                    f"splits.{name}: needs {wanted} rows of {labels[label]!r}, but pool {pool.name!r} has only "
                    f"{len(waiting[label])} left, near-duplicates counted once. Ask for fewer rows."
                )
            chosen.append(waiting[label][:wanted])
            waiting[label] = waiting[label][wanted:]
        out[name] = replace(pool.take(np.sort(np.concatenate(chosen))), name=name)
    left = np.isin(groups, groups[np.concatenate(waiting)])
    for name in (name for name, size in parts.items() if size is None):
        out[name] = replace(pool.take(np.flatnonzero(left)), name=name)
    return out


def limit(split: Split, rows: int) -> Split:
    """At most ``rows`` rows, stratified, the same ones every time, in the split's order."""
    if len(split) <= rows:
        return split
    return _first_of_each_class(split, quotas(np.bincount(split.labels), rows), generator(0, "limit", split.name))


def subset(split: Split, fraction: float, seed: int) -> Split:
    """A stratified share of a split: nested (10 % lies inside 20 %), at least one row of each class there is.

    Args:
        split: n rows.
        fraction: the share, above 0 and at most 1.
        seed: the trial's seed; its stream ``subset`` chooses.
    """
    if fraction >= 1.0:
        return split
    wanted = subset_counts(np.bincount(split.labels), fraction)
    return _first_of_each_class(split, wanted, generator(seed, "subset"))


def subset_counts(counts: IntArray, fraction: float) -> IntArray:
    """Rows of each class in a share of a split with ``counts`` rows of each class [classes]."""
    rounded = np.floor(fraction * counts + 0.5).astype(np.int64)
    return np.asarray(np.minimum(np.maximum(rounded, 1), counts))


def _first_of_each_class(split: Split, wanted: IntArray, random: np.random.Generator) -> Split:
    order = random.permutation(len(split))
    chosen = [order[split.labels[order] == label][:count] for label, count in enumerate(wanted)]
    return split.take(np.sort(np.concatenate(chosen)))
