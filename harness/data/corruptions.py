"""Spoiling some rows of a split, exactly as many as asked: labels flipped or swapped, texts unrelated, duplicates.

How a row was spoiled is part of its id, so that it is known wherever scores or predictions are.
"""

from __future__ import annotations

import numpy as np

from harness.config.benchmark import CorruptedSplit
from harness.data.split import IntArray, Split
from harness.errors import UserError
from harness.seeds import generator

#: how a row may be spoiled; a row as it was is ``original``
KINDS = ("flip", "swap", "unrelated", "duplicate")


def kind(id_: str) -> str:
    """How the row with this id was spoiled: one of ``KINDS``, or ``original``."""
    mark = id_.rpartition("+")[2]
    return mark if "+" in id_ and mark in KINDS else "original"


def corrupt(rows: Split, part: CorruptedSplit, labels: tuple[str, ...], name: str) -> Split:
    """The rows, some of them spoiled; then the copies of duplicated rows.

    Every kind of spoiling has its own random stream, and rows are drawn in an order that does not depend on the
    share: with nothing else changed, the rows flipped at 20 % are among those flipped at 40 %. An id becomes
    ``name-id``, and ``name-id+kind`` where the row is spoiled or a copy.

    Args:
        rows: n rows.
        part: the shares.
        labels: label names, in the order of the class indices.
        name: of the split that results.

    Raises:
        UserError: too few rows are left for a kind.
    """
    work = _Work(rows, part, len(labels), name)
    if part.confusion:
        for label, targets in part.confusion.items():
            for target, share in targets.items():
                work.confuse(labels.index(label), labels.index(target), share)
    work.flip()
    work.swap()
    work.unrelate()
    copies = work.take("duplicate", part.duplicate)
    chosen = np.concatenate([np.arange(len(rows)), copies])
    texts = np.concatenate([work.texts, copies])
    marks = [*work.marks, *["+duplicate"] * len(copies)]
    out = rows.take(texts)
    ids = tuple(f"{name}-{rows.ids[i]}{mark}" for i, mark in zip(chosen, marks, strict=True))
    return Split(name, ids, out.texts, out.pairs, work.labels[chosen])


class _Work:
    """The state while rows are spoiled: new labels, whose text each row has, which rows are still untouched."""

    def __init__(self, rows: Split, part: CorruptedSplit, classes: int, name: str) -> None:
        self.rows, self.part, self.classes, self.name = rows, part, classes, name
        self.labels = rows.labels.copy()
        self.texts: IntArray = np.arange(len(rows), dtype=np.int64)
        self.marks = [""] * len(rows)
        self.free = np.ones(len(rows), dtype=bool)

    def confuse(self, label: int, target: int, share: float) -> None:
        """A share of one label's rows get the label ``target``."""
        members = self.rows.labels == label
        chosen = self._choose("flip", _count(share, int(members.sum())), members)
        self.labels[chosen] = target
        self._mark(chosen, "flip")

    def flip(self) -> None:
        """A share of all rows get another label, each other label as likely."""
        shifts = self._stream("flip to").integers(1, self.classes, size=len(self.rows))
        chosen = self.take("flip", self.part.flip)
        self.labels[chosen] = (self.labels[chosen] + shifts[chosen]) % self.classes
        self._mark(chosen, "flip")

    def swap(self) -> None:
        """Rows exchange labels in pairs of different classes."""
        half = _count(self.part.swap / 2, len(self.rows))
        allowed = np.zeros(len(self.rows), dtype=bool)
        order = self._order("swap")
        for label in range(self.classes):  # with at most half of one class, pairing across the middle mixes classes
            allowed[order[self.free[order] & (self.rows.labels[order] == label)][:half]] = True
        chosen = self._choose("swap", 2 * half, allowed)
        chosen = chosen[np.argsort(self.labels[chosen], kind="stable")]
        self.labels[chosen] = np.roll(self.labels[chosen], half)
        self._mark(chosen, "swap")

    def unrelate(self) -> None:
        """A share of all rows get the text of another row, whatever that one's label."""
        others = self._stream("unrelated from").integers(1, max(len(self.rows), 2), size=len(self.rows))
        chosen = self.take("unrelated", self.part.unrelated)
        self.texts[chosen] = (chosen + others[chosen]) % len(self.rows)
        self._mark(chosen, "unrelated")

    def take(self, kind: str, share: float) -> IntArray:
        """A share of all rows, from those still untouched, in order; they are touched now."""
        return self._choose(kind, _count(share, len(self.rows)), np.ones(len(self.rows), dtype=bool))

    def _choose(self, kind: str, count: int, allowed: np.typing.NDArray[np.bool_]) -> IntArray:
        order = self._order(kind)
        chosen = order[(self.free & allowed)[order]][:count]
        if len(chosen) < count:
            raise UserError(
                f"splits.{self.name}: {kind} needs {count} rows of {self.part.of}, but only {len(chosen)} fit that "
                "are not spoiled already. Ask for a smaller share."
            )
        self.free[chosen] = False
        return np.sort(chosen)

    def _mark(self, chosen: IntArray, kind: str) -> None:
        for row in chosen:
            self.marks[row] = f"+{kind}"

    def _order(self, kind: str) -> IntArray:
        return self._stream(kind).permutation(len(self.rows))

    def _stream(self, what: str) -> np.random.Generator:
        return generator(self.part.seed, "corruption", what)


def _count(share: float, rows: int) -> int:
    return int(np.floor(share * rows + 0.5))
