"""Which rows a trial uses: those of its splits, one after the other, and of ``real_small`` a share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.data.partition import subset, subset_counts
from harness.data.split import Split, concatenate


def select(names: Sequence[str], splits: Mapping[str, Split], fraction: float | None, seed: int) -> Split:
    """The rows of the named splits, together.

    Args:
        names: names of the splits.
        splits: name -> rows.
        fraction: the share of ``real_small``; None for all of it.
        seed: the trial's seed, with which the share is drawn.
    """
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
