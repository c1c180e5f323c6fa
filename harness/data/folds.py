"""Folds of the rows of a trial: stratified, seeded, near-duplicates together."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from harness.config.schema import FrozenModel
from harness.data.near_duplicates import groups
from harness.data.split import IntArray, Split, row_texts
from harness.errors import TrialError
from harness.seeds import generator

#: Jaccard similarity from which rows are near-duplicates, as by default between the splits of a benchmark.
NEAR_DUPLICATE = 0.8


class Fold(FrozenModel):
    """A fold that is held out of a training."""

    number: Annotated[int, Field(ge=0)]
    """From 0."""
    of: Annotated[int, Field(ge=2)]
    """Number of folds."""


def fold_numbers(rows: Split, folds: int, seed: int) -> IntArray:
    """The fold of every row, from 0: int64 [n].

    Rows are dealt out in the random order of the trial's stream ``folds``, each to the fold that has the fewest rows of
    its class, and among those to the smallest. Without near-duplicates the folds differ by at most one row of a class.

    Args:
        rows: n rows.
        folds: how many.
        seed: the trial's seed.

    Raises:
        TrialError: there are fewer groups of near-duplicates than folds.
    """
    group = groups(row_texts(rows), NEAR_DUPLICATE)
    sizes = np.bincount(group)
    if len(sizes) < folds:
        raise TrialError(
            f"{rows.name}: expected at least {folds} different rows for {folds} folds, found {len(sizes)} groups of "
            "near-duplicates"
        )
    labels = np.zeros((len(sizes), int(rows.labels.max()) + 1), dtype=np.int64)
    np.add.at(labels, (group, rows.labels), 1)
    order = generator(seed, "folds", folds).permutation(len(sizes))
    counts, fold_of_group = np.zeros((folds, labels.shape[1]), dtype=np.int64), np.zeros(len(sizes), dtype=np.int64)
    for number in order[np.argsort(-sizes[order], kind="stable")]:  # large groups first: single rows even them out
        best = int(np.lexsort((counts.sum(axis=1), counts @ labels[number]))[0])
        fold_of_group[number] = best
        counts[best] += labels[number]
    out: IntArray = fold_of_group[group]
    return out


def outside_fold(rows: Split, fold: Fold, seed: int) -> Split:
    """The rows outside a fold, which a model trains on."""
    return rows.take(np.flatnonzero(fold_numbers(rows, fold.of, seed) != fold.number))


def inside_fold(rows: Split, fold: Fold, seed: int) -> Split:
    """The rows of a fold, which the model that has not trained on them scores."""
    return rows.take(np.flatnonzero(fold_numbers(rows, fold.of, seed) == fold.number))
