"""Divide rows: splits of a pool, limits of a split, nested subsets. All stratified and seeded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from harness.data.split import IntArray, Split
from harness.errors import UserError
from harness.seeds import generator

#: Parts draw their rows in this order, so that the size of a training part never changes the test rows.
_ORDER = ("test", "validation", "real_small", "real_large", "generated", "noisy")


def quotas(counts: IntArray, total: int) -> IntArray:
    """Distribute ``total`` rows in proportion to ``counts`` by largest remainder: int64 [classes]."""
    exact = counts * total / counts.sum()
    out: IntArray = np.floor(exact).astype(np.int64)
    missing = total - int(out.sum())
    out[np.argsort(out - exact, kind="stable")[:missing]] += 1
    return out


def partition(
    pool: Split, parts: Mapping[str, int | None], groups: IntArray, labels: tuple[str, ...], stream: str
) -> dict[str, Split]:
    """Divide a pool so that no near-duplicate group has rows in two parts.

    A part with a size has exactly that many rows, and each class deviates by less than one row from its share of the
    pool. It takes at most one row of a near-duplicate group; the group's other rows are in no part. The part without a
    size takes all rows of the remaining groups, in the pool's order.

    Args:
        pool: n rows.
        parts: name -> number of rows; None for the rest.
        groups: near-duplicate group of each row, int64 [n].
        labels: label names, for messages.
        stream: name of the random stream, e.g. the benchmark's name.

    Raises:
        UserError: the pool has too few rows of a class, counting one for each near-duplicate group.
    """
    order = generator(0, "split", stream).permutation(len(pool))
    first = np.unique(groups[order], return_index=True)[1]
    candidates = order[np.sort(first)]
    available = [candidates[pool.labels[candidates] == label] for label in range(len(labels))]
    counts = np.bincount(pool.labels, minlength=len(labels))
    out: dict[str, Split] = {}
    for name in sorted((name for name, size in parts.items() if size is not None), key=_ORDER.index):
        rows = []
        for label, quota in enumerate(quotas(counts, parts[name] or 0)):
            if quota > len(available[label]):
                raise UserError(
                    f"splits.{name}: needs {quota} rows of {labels[label]!r}, but pool {pool.name!r} has only "
                    f"{len(available[label])} left, near-duplicates counted once. Ask for fewer rows."
                )
            rows.append(available[label][:quota])
            available[label] = available[label][quota:]
        out[name] = replace(pool.take(np.sort(np.concatenate(rows))), name=name)
    rest = np.isin(groups, groups[np.concatenate(available)])
    for name in (name for name, size in parts.items() if size is None):
        out[name] = replace(pool.take(np.flatnonzero(rest)), name=name)
    return out


def limit(split: Split, rows: int) -> Split:
    """At most ``rows`` rows of a split, stratified, in its order. The draw depends on the split's name alone."""
    if len(split) <= rows:
        return split
    return _first_of_each_class(split, quotas(np.bincount(split.labels), rows), generator(0, "limit", split.name))


def subset(split: Split, fraction: float, seed: int) -> Split:
    """A stratified share of a split, with at least one row of each class that the split has.

    Shares with one seed are nested: the rows of 10 % are among those of 20 %.

    Args:
        split: n rows.
        fraction: the share, above 0 and at most 1.
        seed: the trial's seed; rows are drawn with its stream ``subset``.
    """
    if fraction >= 1.0:
        return split
    return _first_of_each_class(split, subset_counts(np.bincount(split.labels), fraction), generator(seed, "subset"))


def subset_counts(counts: IntArray, fraction: float) -> IntArray:
    """Rows of each class in a share of a split with ``counts`` rows of each class: int64 [classes]."""
    rounded = np.floor(fraction * counts + 0.5).astype(np.int64)
    return np.asarray(np.minimum(np.maximum(rounded, 1), counts))


def _first_of_each_class(split: Split, counts: IntArray, random: np.random.Generator) -> Split:
    """The first ``counts`` [classes] rows of each class in a random order, put back into the split's order."""
    order = random.permutation(len(split))
    rows = [order[split.labels[order] == label][:count] for label, count in enumerate(counts)]
    return split.take(np.sort(np.concatenate(rows)))
