"""Corrupts an exact share of a split's rows: labels flipped or swapped, texts unrelated, rows duplicated."""

from __future__ import annotations

import numpy as np

from harness.config.benchmark import CorruptedSplit
from harness.data.split import IntArray, Split
from harness.errors import UserError
from harness.seeds import generator

#: How a row may be corrupted: the values of ``Split.corruptions``, where "" is a clean row.
KINDS = ("flip", "swap", "unrelated", "duplicate")


def corrupt(rows: Split, spec: CorruptedSplit, labels: tuple[str, ...], name: str) -> Split:
    """The rows, some of them corrupted, then the copies of duplicated rows; ``corruptions`` says which.

    Every kind of corruption has its own random stream, and rows are drawn in an order that does not depend on the
    share: with nothing else changed, the rows flipped at 20 % are among those flipped at 40 %. An id becomes
    ``<name>-<id>``, that of a copy ``<name>-<id>-copy``. A row is copied once at most.

    Args:
        rows: n clean rows.
        spec: the shares and the seed.
        labels: label names, in the order of the class indices.
        name: the name of the new split.

    Raises:
        UserError: fewer clean rows are left than a kind of corruption needs.
    """
    corruptor = _RowCorruptor(rows, spec, len(labels), name)
    for label, targets in spec.confusion.items():
        for target, share in targets.items():
            corruptor.confuse(labels.index(label), labels.index(target), share)
    corruptor.flip()
    corruptor.swap()
    corruptor.unrelate()
    copies = corruptor.draw("duplicate", spec.duplicate)
    texts = rows.take(np.concatenate([corruptor.texts, copies]))
    ids = tuple(f"{name}-{id_}" for id_ in rows.ids)
    return Split(
        name,
        ids + _copy_ids(ids, copies),
        texts.texts,
        texts.pairs,
        np.concatenate([corruptor.labels, rows.labels[copies]]),
        (*corruptor.corruptions, *["duplicate"] * len(copies)),
    )


class _RowCorruptor:
    """The rows while they are corrupted, one kind after the other; a row is corrupted in one way at most.

    Attributes:
        labels: the new class indices, int64 [n].
        texts: for each row, the row whose text it has, int64 [n].
        corruptions: how each row is corrupted, "" for a clean one [n].
        free: which rows may still be corrupted or copied, bool [n].
    """

    def __init__(self, rows: Split, spec: CorruptedSplit, classes: int, name: str) -> None:
        self.rows, self.spec, self.classes, self.name = rows, spec, classes, name
        self.labels = rows.labels.copy()
        self.texts: IntArray = np.arange(len(rows), dtype=np.int64)
        self.corruptions = [""] * len(rows)
        self.free = np.ones(len(rows), dtype=bool)

    def confuse(self, label: int, target: int, share: float) -> None:
        """Gives a share of one label's rows the label ``target``."""
        members = self.rows.labels == label
        rows = self._draw("flip", _count(share, int(members.sum())), members)
        self.labels[rows] = target
        self._mark(rows, "flip")

    def flip(self) -> None:
        """Gives a share of all rows another label, each other label with the same probability."""
        shifts = self._stream("flip to").integers(1, self.classes, size=len(self.rows))
        rows = self.draw("flip", self.spec.flip)
        self.labels[rows] = (self.labels[rows] + shifts[rows]) % self.classes
        self._mark(rows, "flip")

    def swap(self) -> None:
        """Exchanges the labels of pairs of rows from different classes."""
        half = _count(self.spec.swap / 2, len(self.rows))
        allowed = np.zeros(len(self.rows), dtype=bool)
        order = self._order("swap")
        for label in range(self.classes):  # with at most half of one class, pairing across the middle mixes classes
            allowed[order[self.free[order] & (self.rows.labels[order] == label)][:half]] = True
        rows = self._draw("swap", 2 * half, allowed)
        rows = rows[np.argsort(self.labels[rows], kind="stable")]
        self.labels[rows] = np.roll(self.labels[rows], half)
        self._mark(rows, "swap")

    def unrelate(self) -> None:
        """Gives a share of all rows the text of another row, drawn without regard to labels."""
        shifts = self._stream("unrelated from").integers(1, max(len(self.rows), 2), size=len(self.rows))
        rows = self.draw("unrelated", self.spec.unrelated)
        self.texts[rows] = (rows + shifts[rows]) % len(self.rows)
        self._mark(rows, "unrelated")

    def draw(self, kind: str, share: float) -> IntArray:
        """Draws a share of all rows from the free ones, which are then no longer free: row numbers, ascending."""
        return self._draw(kind, _count(share, len(self.rows)), np.ones(len(self.rows), dtype=bool))

    def _draw(self, kind: str, count: int, allowed: np.typing.NDArray[np.bool_]) -> IntArray:
        order = self._order(kind)
        rows = order[(self.free & allowed)[order]][:count]
        if len(rows) < count:
            raise UserError(
                f"splits.{self.name}: {kind} needs {count} rows of {self.spec.of}, but only {len(rows)} suitable ones "
                "are still clean. Ask for a smaller share."
            )
        self.free[rows] = False
        return np.sort(rows)

    def _mark(self, rows: IntArray, kind: str) -> None:
        for row in rows:
            self.corruptions[row] = kind

    def _order(self, kind: str) -> IntArray:
        return self._stream(kind).permutation(len(self.rows))

    def _stream(self, purpose: str) -> np.random.Generator:
        return generator(self.spec.seed, "corruption", purpose)


def _copy_ids(ids: tuple[str, ...], copies: IntArray) -> tuple[str, ...]:
    """An id for the copy of each row in ``copies``: ``<id>-copy``, with ``-copy`` once more where a row has that id."""
    known = set(ids)
    out = []
    for row in copies:
        id_ = f"{ids[row]}-copy"
        while id_ in known:
            id_ += "-copy"
        known.add(id_)
        out.append(id_)
    return tuple(out)


def _count(share: float, rows: int) -> int:
    return int(np.floor(share * rows + 0.5))
