"""The rows of one split, in plain arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Labelled rows. Every row has a stable id, unique within its benchmark.

    Attributes:
        name: the split's name, e.g. ``"generated"``.
        ids: n ids.
        texts: n texts.
        pairs: the second texts of n pairs, or None for single texts.
        labels: class indices, int64 [n].
        corruptions: how each of n rows was corrupted (one of ``harness.data.corruptions.KINDS``), "" for a clean row;
            None where no row was corrupted on purpose.
    """

    name: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: IntArray
    corruptions: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ids, texts, labels and corruptions, in order: the split's identity, 64 hex digits.

        Corruptions count because they are recorded with results; without them the digest is that of the rows alone.
        """
        sha = hashlib.sha256()
        seconds = self.pairs or ("",) * len(self)
        rows = zip(self.ids, self.texts, seconds, map(str, self.labels.tolist()), strict=True)
        for part in (*(part for row in rows for part in row), *(self.corruptions or ())):
            raw = part.encode()
            sha.update(len(raw).to_bytes(8, "little"))
            sha.update(raw)
        return sha.hexdigest()

    def take(self, indices: Sequence[int] | IntArray) -> Split:
        """The rows at ``indices``, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        return Split(
            self.name,
            tuple(self.ids[i] for i in rows),
            tuple(self.texts[i] for i in rows),
            None if self.pairs is None else tuple(self.pairs[i] for i in rows),
            self.labels[rows],
            None if self.corruptions is None else tuple(self.corruptions[i] for i in rows),
        )


def concatenate(name: str, splits: Sequence[Split]) -> Split:
    """The rows of several splits, one after the other; a single split is returned as it is."""
    if len(splits) == 1:
        return splits[0]
    corrupted = any(split.corruptions is not None for split in splits)
    return Split(
        name,
        tuple(i for split in splits for i in split.ids),
        tuple(t for split in splits for t in split.texts),
        None if splits[0].pairs is None else tuple(p for split in splits for p in split.pairs or ()),
        np.concatenate([split.labels for split in splits]),
        tuple(c for split in splits for c in split.corruptions or ("",) * len(split)) if corrupted else None,
    )


def row_texts(split: Split) -> tuple[str, ...]:
    """One text for each row: the two texts of a pair are joined by a space."""
    return tuple(map(" ".join, zip(split.texts, split.pairs, strict=True))) if split.pairs else split.texts
