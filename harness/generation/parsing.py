"""Parses answers into rows, validates them, and counts rejections by reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.config.benchmark import TaskPrompt
from harness.data.near_duplicates import groups, matches
from harness.data.split import Split
from harness.llm.answers import json_in
from harness.llm.journal import Answer

MALFORMED, CUT, REFUSED = "malformed JSON", "cut off at max_tokens", "refused by the model"
WRONG_LABEL, EMPTY, WRONG_PAIR, BROKEN = "wrong label", "empty text", "wrong pair form", "broken characters"
DUPLICATE, OVERLAP, SURPLUS = "duplicate", "overlap with {}", "more than needed"

_BROKEN = re.compile(r"[\ud800-\udfff\ufffd\x00-\x08\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Row:
    """A generated row: one or two texts, class index and attributes."""

    texts: tuple[str, ...]
    label: int
    attributes: Mapping[str, str]

    @property
    def joined(self) -> str:
        """The texts as one text."""
        return " ".join(self.texts)


def parse(
    answer: Answer, task: TaskPrompt, label: int, attributes: Mapping[str, str]
) -> tuple[list[Row], Counter[str]]:
    """The valid rows of an answer, and the number of rejected rows by reason.

    An answer without JSON counts as one rejection.

    Args:
        answer: the answer to a request for rows.
        task: names of columns and labels.
        label: the requested class index.
        attributes: the attributes of all rows of the answer.
    """
    rejects: Counter[str] = Counter()
    try:
        content = json_in(answer.text)
    except ValueError:
        reason = {"length": CUT, "refusal": REFUSED, "content_filter": REFUSED}.get(answer.finish, MALFORMED)
        return [], Counter({reason: 1})
    entries = content.get("rows") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        return [], Counter({MALFORMED: 1})
    rows = []
    for entry in entries:
        texts = _texts(entry, task, label)
        if isinstance(texts, str):
            rejects[texts] += 1
        else:
            rows.append(Row(texts, label, attributes))
    return rows, rejects


def _texts(entry: Any, task: TaskPrompt, label: int) -> tuple[str, ...] | str:
    """The texts of an entry, or the reason to reject it."""
    if not isinstance(entry, dict):
        return MALFORMED
    label_name = str(entry.get(task.label, "")).strip().casefold()
    if label_name != task.labels[label].casefold():
        return WRONG_LABEL
    values = [entry.get(name) for name in task.columns]
    pair = len(values) == 2
    if pair and not all(isinstance(value, str) for value in values):
        return WRONG_PAIR
    texts = tuple(" ".join(value.split()) if isinstance(value, str) else "" for value in values)
    if not all(texts):
        return EMPTY
    if any(map(_BROKEN.search, texts)):
        return BROKEN
    return WRONG_PAIR if pair and texts[0] == texts[1] else texts


class RowFilter:
    """Keeps rows that are near-duplicates neither of kept rows nor of real rows, up to a quota for each label.

    Args:
        quotas: number of rows of each class.
        real: the real splits; an overlap with several is counted for the first.
        threshold: Jaccard similarity of word bigrams from which two texts are near-duplicates.
    """

    def __init__(self, quotas: Sequence[int], real: Mapping[str, Split], threshold: float) -> None:
        self.kept: list[Row] = []
        self.rejects: Counter[str] = Counter()
        self.surplus = 0
        self._quotas, self._threshold = quotas, threshold
        self._real = {name: [" ".join(pair) for pair in _text_tuples(split)] for name, split in real.items()}

    @property
    def missing(self) -> list[int]:
        """Number of rows still missing of each class."""
        counts = Counter(row.label for row in self.kept)
        return [quota - counts[label] for label, quota in enumerate(self._quotas)]

    def add(self, rows: Sequence[Row], rejects: Counter[str]) -> None:
        """Filters new rows in their order; ``rejects`` counts entries that were rejected while parsing."""
        self.rejects += rejects
        candidates = self._without_real(rows)
        if not candidates:
            return
        texts = [row.joined for row in candidates]
        near_kept = matches(texts, [row.joined for row in self.kept], self._threshold) if self.kept else None
        group = groups(texts, self._threshold)
        seen: set[int] = set()
        missing = self.missing
        for i, row in enumerate(candidates):
            if (near_kept is not None and near_kept[i]) or int(group[i]) in seen:
                self.rejects[DUPLICATE] += 1
                continue
            seen.add(int(group[i]))
            if missing[row.label] <= 0:
                self.surplus += 1
                continue
            missing[row.label] -= 1
            self.kept.append(row)

    def _without_real(self, rows: Sequence[Row]) -> list[Row]:
        remaining = list(rows)
        for name, texts in self._real.items():
            if remaining:
                near = matches([row.joined for row in remaining], texts, self._threshold)
                self.rejects[OVERLAP.format(name)] += int(near.sum())
                remaining = [remaining[i] for i in np.flatnonzero(~near)]
        return remaining


def _text_tuples(split: Split) -> list[tuple[str, ...]]:
    return (
        [(text,) for text in split.texts] if split.pairs is None else list(zip(split.texts, split.pairs, strict=True))
    )
