"""Which rows a trial uses: those of its splits, one after the other, of ``real_small`` a share, without one fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.data.folds import Fold, inside_fold, outside_fold
from harness.data.partition import subset, subset_counts
from harness.data.split import Split, concatenate


def select(
    names: Sequence[str], splits: Mapping[str, Split], fraction: float | None, seed: int, fold: Fold | None = None
) -> Split:
    """The rows of the named splits, together.

    Args:
        names: names of the splits.
        splits: name -> rows.
        fraction: the share of ``real_small``; None for all of it.
        seed: the trial's seed, with which the share and the folds are drawn.
        fold: of these rows, the fold to leave out.
    """
    rows = _select(names, splits, fraction, seed)
    return rows if fold is None else outside_fold(rows, fold, seed)


def select_scored(
    names: Sequence[str], splits: Mapping[str, Split], fraction: float | None, seed: int, fold: Fold | None
) -> Split:
    """The rows that a checker scores: those of the named splits, or of a checker that leaves out a ``fold`` only these.

    See ``select``.
    """
    rows = _select(names, splits, fraction, seed)
    return rows if fold is None else inside_fold(rows, fold, seed)


def _select(names: Sequence[str], splits: Mapping[str, Split], fraction: float | None, seed: int) -> Split:
    share = 1.0 if fraction is None else fraction
    parts = [subset(splits[name], share, seed) if name == "real_small" else splits[name] for name in names]
    return concatenate("+".join(names), parts)


def count(names: Sequence[str], splits: Mapping[str, Split], fraction: float | None) -> int:
    """How many rows ``select`` gives, without selecting them."""
    share = 1.0 if fraction is None else fraction
    total = 0
    for name in names:
        partial = name == "real_small" and share < 1.0
        total += int(subset_counts(np.bincount(splits[name].labels), share).sum()) if partial else len(splits[name])
    return total
