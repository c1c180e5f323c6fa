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
    """

    name: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: IntArray

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ids, texts and labels, in order: the split's identity."""
        sha = hashlib.sha256()
        seconds = self.pairs or ("",) * len(self)
        for id_, text, second, label in zip(self.ids, self.texts, seconds, self.labels, strict=True):
            for part in (id_, text, second, str(int(label))):
                raw = part.encode()
                sha.update(len(raw).to_bytes(8, "little"))
                sha.update(raw)
        return sha.hexdigest()

    def take(self, indices: Sequence[int] | IntArray) -> Split:
        """The rows at ``indices``, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Split(
            self.name,
            tuple(self.ids[i] for i in chosen),
            tuple(self.texts[i] for i in chosen),
            None if self.pairs is None else tuple(self.pairs[i] for i in chosen),
            self.labels[chosen],
        )


def concatenate(name: str, splits: Sequence[Split]) -> Split:
    """The rows of several splits, one after the other."""
    if len(splits) == 1:
        return splits[0]
    return Split(
        name,
        tuple(i for split in splits for i in split.ids),
        tuple(t for split in splits for t in split.texts),
        None if splits[0].pairs is None else tuple(p for split in splits for p in split.pairs or ()),
        np.concatenate([split.labels for split in splits]),
    )
