"""Which columns of a file hold the text and the label, by their names and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError

_LABELS = ("label", "labels", "class", "category", "target", "sentiment", "intent", "gold_label", "y")
_TEXTS = ("text", "sentence", "content", "review", "tweet", "message", "body", "document", "utterance", "title")
_PAIRS = (
    ("sentence1", "sentence2"), ("text1", "text2"), ("text_a", "text_b"), ("question1", "question2"),
    ("premise", "hypothesis"), ("question", "answer"), ("text", "second"), ("query", "passage"),
)  # fmt: skip
#: The most different values that a column of labels has.
MOST_LABELS = 100


@dataclass(frozen=True)
class TextAndLabel:
    """The columns of a file.

    Attributes:
        text: one text column, or the two of a pair.
        label: the label column.
        guessed: True if any of them was not named by the user.
    """

    text: tuple[str, ...]
    label: str
    guessed: bool

    def __str__(self) -> str:
        return f"text {' + '.join(map(repr, self.text))}, label {self.label!r}"


def choose(
    records: Sequence[Mapping[str, Any]], text: tuple[str, ...] | None, label: str | None, where: str
) -> TextAndLabel:
    """The columns that the user names, or those that look like texts and labels.

    A column with a usual name comes first; else the label is the column with the fewest values, and the text the one
    with the longest.

    Args:
        records: the rows of the file.
        text: the text columns, or None to guess them.
        label: the label column, or None to guess it.
        where: the file, for messages.

    Raises:
        UserError: no column looks like a text or a label.
    """
    names = list(records[0])
    guessed = text is None or label is None
    label = label or _label(records, names, text or (), where)
    return TextAndLabel(text or _text(records, names, label, where), label, guessed)


def _label(records: Sequence[Mapping[str, Any]], names: Sequence[str], text: tuple[str, ...], where: str) -> str:
    by_name = {name.lower(): name for name in names if name not in text}
    for usual in _LABELS:
        if usual in by_name:
            return by_name[usual]
    counts = {name: len({str(record.get(name)) for record in records}) for name in names if name not in text}
    few = {name: count for name, count in counts.items() if 2 <= count <= min(MOST_LABELS, len(records) // 3)}
    if not few:
        raise UserError(
            f"{where}: expected a label column, found {', '.join(map(repr, names))}, each with one value or with too "
            "many. Name it with --label."
        )
    return min(few, key=lambda name: (few[name], names.index(name)))


def _text(records: Sequence[Mapping[str, Any]], names: Sequence[str], label: str, where: str) -> tuple[str, ...]:
    texts = [name for name in names if name != label and all(isinstance(r.get(name), str) for r in records)]
    by_name = {name.lower(): name for name in texts}
    for first, second in _PAIRS:
        if first in by_name and second in by_name:
            return by_name[first], by_name[second]
    for usual in _TEXTS:
        if usual in by_name:
            return (by_name[usual],)
    lengths = {name: sum(len(record[name]) for record in records) / len(records) for name in texts}
    if not lengths or max(lengths.values()) < 3:
        raise UserError(
            f"{where}: expected a text column beside the label {label!r}, found {', '.join(map(repr, names))}. Name it "
            "with --text."
        )
    return (max(lengths, key=lambda name: lengths[name]),)
