"""From answers to rows: parsed, validated, and every rejection counted by its reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.config.benchmark import Benchmark
from harness.data.near_duplicates import groups, matches
from harness.data.split import Split
from harness.llm.answers import json_in
from harness.llm.journal import Answer
from harness.llm.tasks import columns

MALFORMED, CUT, REFUSED = "malformed JSON", "cut off at max_tokens", "refused by the model"
WRONG_LABEL, EMPTY, WRONG_PAIR, BROKEN = "wrong label", "empty text", "wrong pair form", "broken characters"
DUPLICATE, OVERLAP, SURPLUS = "duplicate", "overlap with {}", "more than needed"

_BROKEN = re.compile(r"[\ud800-\udfff\ufffd\x00-\x08\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Row:
    """A row that a model wrote: its one or two texts, class index and attributes."""

    texts: tuple[str, ...]
    label: int
    attributes: Mapping[str, str]

    @property
    def joined(self) -> str:
        """One text: a pair counts as its two texts in one."""
        return " ".join(self.texts)


def parse(
    answer: Answer, benchmark: Benchmark, label: int, attributes: Mapping[str, str]
) -> tuple[list[Row], Counter[str]]:
    """The good rows of an answer, and how many were rejected for which reason.

    An answer that is no JSON counts as one rejection.

    Args:
        answer: to the request for rows.
        benchmark: names columns and labels.
        label: the class index that was asked for.
        attributes: of all rows of the answer.
    """
    rejects: Counter[str] = Counter()
    try:
        found = json_in(answer.text)
    except ValueError:
        reason = {"length": CUT, "refusal": REFUSED, "content_filter": REFUSED}.get(answer.finish, MALFORMED)
        return [], Counter({reason: 1})
    entries = found.get("rows") if isinstance(found, dict) else found
    if not isinstance(entries, list):
        return [], Counter({MALFORMED: 1})
    rows = []
    for entry in entries:
        texts = _texts(entry, benchmark, label)
        if isinstance(texts, str):
            rejects[texts] += 1
        else:
            rows.append(Row(texts, label, attributes))
    return rows, rejects


def _texts(entry: Any, benchmark: Benchmark, label: int) -> tuple[str, ...] | str:
    """The texts of one entry, or the reason against it."""
    if not isinstance(entry, dict):
        return MALFORMED
    said = str(entry.get(benchmark.label, "")).strip().casefold()
    if said != benchmark.labels[label].casefold():
        return WRONG_LABEL
    names = columns(benchmark)
    values = [entry.get(name) for name in names]
    if len(names) == 2 and not all(isinstance(value, str) for value in values):
        return WRONG_PAIR
    texts = tuple(" ".join(value.split()) if isinstance(value, str) else "" for value in values)
    if not all(texts):
        return EMPTY
    if any(map(_BROKEN.search, texts)):
        return BROKEN
    return WRONG_PAIR if len(names) == 2 and texts[0] == texts[1] else texts


class RowFilter:
    """Keeps rows that are neither near-duplicates of kept ones nor of real ones, up to a quota for each label.

    Args:
        quotas: rows wanted of each class.
        real: the real splits; where a row overlaps several, the first counts.
        threshold: Jaccard similarity of word bigrams from which two texts are near-duplicates.
    """

    def __init__(self, quotas: Sequence[int], real: Mapping[str, Split], threshold: float) -> None:
        self.kept: list[Row] = []
        self.rejects: Counter[str] = Counter()
        self.surplus = 0
        self._quotas, self._threshold = quotas, threshold
        self._real = {name: [" ".join(pair) for pair in _pairs(split)] for name, split in real.items()}

    @property
    def missing(self) -> list[int]:
        """Rows still wanted of each class."""
        counts = Counter(row.label for row in self.kept)
        return [quota - counts[label] for label, quota in enumerate(self._quotas)]

    def add(self, rows: Sequence[Row], rejects: Counter[str]) -> None:
        """Takes what is good of new rows, in their order; ``rejects`` were rejected before."""
        self.rejects += rejects
        fresh = self._without_real(rows)
        if not fresh:
            return
        texts = [row.joined for row in fresh]
        known = matches(texts, [row.joined for row in self.kept], self._threshold) if self.kept else None
        group = groups(texts, self._threshold)
        seen: set[int] = set()
        missing = self.missing
        for i, row in enumerate(fresh):
            if (known is not None and known[i]) or int(group[i]) in seen:
                self.rejects[DUPLICATE] += 1
                continue
            seen.add(int(group[i]))
            if missing[row.label] <= 0:
                self.surplus += 1
                continue
            missing[row.label] -= 1
            self.kept.append(row)

    def _without_real(self, rows: Sequence[Row]) -> list[Row]:
        left = list(rows)
        for name, texts in self._real.items():
            if left:
                near = matches([row.joined for row in left], texts, self._threshold)
                self.rejects[OVERLAP.format(name)] += int(near.sum())
                left = [left[i] for i in np.flatnonzero(~near)]
        return left


def _pairs(split: Split) -> list[tuple[str, ...]]:
    return (
        [(text,) for text in split.texts] if split.pairs is None else list(zip(split.texts, split.pairs, strict=True))
    )
