"""Reads the two files: columns, labels, ids; every mistake is named with its file and row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.benchmark import DataSource
from harness.data.cleaning import clean
from harness.data.readers import Record, column_of, open_source, text_of
from harness.data.split import Split
from harness.errors import UserError, unknown
from harness.weigh.columns import MOST_LABELS, TextAndLabel, choose
from harness.weigh.settings import FOLDS, WeighSettings

KEEP, DROP = "keep", "drop"


@dataclass(frozen=True)
class Inputs:
    """The rows to weigh.

    Attributes:
        people: the rows that people labeled; their ids begin with ``people-``.
        written: the rows that a language model wrote; their ids begin with ``written-``.
        labels: label names, in the order of the class indices.
        columns: file name -> its columns.
        notes: what was found and done, as sentences.
        confirmed: ids of written rows whose label a reviewer has confirmed or corrected.
        reviewed: number of verdicts by kind: kept, dropped, relabeled.
    """

    people: Split
    written: Split
    labels: tuple[str, ...]
    columns: dict[str, TextAndLabel]
    notes: tuple[str, ...] = ()
    confirmed: frozenset[str] = frozenset()
    reviewed: Mapping[str, int] | None = None


def read(settings: WeighSettings) -> Inputs:
    """The rows of both files.

    Raises:
        UserError: a file cannot be read, a column is missing, a row has no text or no label, there are fewer than two
            labels, fewer human rows of a label than folds, or a written row has a label that no human row has.
    """
    people_source, people_records = _records(settings.people)
    written_source, written_records = _records(settings.written)
    people_columns = _columns(settings, settings.people, people_records, people_source)
    written_columns = _columns(settings, settings.written, written_records, written_source, people_columns)
    if len(people_columns.text) != len(written_columns.text):
        raise UserError(
            f"expected as many text columns in both files, found {people_columns} in {people_source} and "
            f"{written_columns} in {written_source}. Name them with --text, twice for a pair."
        )
    labels = _label_names(people_records, people_columns.label, people_source)
    people, notes = _split("people", settings.people, people_records, people_columns, labels, people_source)
    written, more = _split("written", settings.written, written_records, written_columns, labels, written_source)
    _check_counts(people, labels, people_source)
    columns = {people_source: people_columns, written_source: written_columns}
    inputs = Inputs(people, written, labels, columns, (*notes, *more))
    return inputs if settings.reviewed is None else _with_verdicts(inputs, Path(settings.reviewed))


def _records(source: DataSource) -> tuple[str, list[Record]]:
    where, records, _ = open_source(source)
    rows = list(records)
    if not rows:
        raise UserError(f"{where}: expected at least one row, found none.")
    return where, rows


def _columns(
    settings: WeighSettings, source: DataSource, records: Sequence[Record], where: str, like: TextAndLabel | None = None
) -> TextAndLabel:
    """The columns of a file: those that are named, else those of the other file if it has them, else guessed."""
    text = source.text or settings.text
    names = None if text is None else (text,) if isinstance(text, str) else tuple(text)
    label = source.label or settings.label
    guessed = names is None or label is None
    if like is not None and guessed:
        present = records[0][1].keys()
        names = names or (like.text if set(like.text) <= present else None)
        label = label or (like.label if like.label in present else None)
    return replace(choose([record for _, record in records], names, label, where), guessed=guessed)


def _label_names(records: Sequence[Record], column: str, where: str) -> tuple[str, ...]:
    """The labels of the human rows, sorted; whole numbers by size."""
    values = {_label(column_of(record, column, f"{where}, {position}"), column, f"{where}, {position}")
              for position, record in records}  # fmt: skip
    if len(values) < 2:
        raise UserError(f"{where}: expected at least two labels in {column!r}, found only {min(values)!r}.")
    if len(values) > MOST_LABELS:
        raise UserError(
            f"{where}: expected at most {MOST_LABELS} labels, found {len(values)} in {column!r}. Name the label column "
            "with --label."
        )
    whole = all(re.fullmatch(r"-?[0-9]+", value) for value in values)
    return tuple(sorted(values, key=lambda value: (int(value), value) if whole else (0, value)))


def _label(value: Any, column: str, where: str) -> str:
    """A label as text: without white space around it, a whole number without a decimal point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip() if isinstance(value, str | int | bool) else ""
    if not text or text != text.encode("utf-8", "replace").decode():
        raise UserError(f"{where}: {column!r}: expected a label, found {value!r}.")
    return text


def _split(
    name: str, source: DataSource, records: Sequence[Record], columns: TextAndLabel, labels: tuple[str, ...], where: str
) -> tuple[Split, list[str]]:
    """The rows of a file, cleaned as its source says, and a note for each cleaning step."""
    known = {label: index for index, label in enumerate(labels)}
    ids: dict[str, str] = {}
    texts: list[tuple[str, ...]] = []
    classes: list[int] = []
    own_ids = source.id or _id_column(records)
    for position, record in records:
        row = f"{where}, {position}"
        allow_empty = "drop_empty" in source.clean
        texts.append(tuple(text_of(column_of(record, c, row), c, row, allow_empty) for c in columns.text))
        label = _label(column_of(record, columns.label, row), columns.label, row)
        if label not in known:
            raise unknown("label", label, known, f"{row}; the human rows do not have it")
        classes.append(known[label])
        own = str(column_of(record, own_ids, row)) if own_ids else position.split()[-1]
        if "\n" in own or own != own.encode("utf-8", "replace").decode():
            raise UserError(f"{row}: {own_ids!r}: expected an id on one line, found {own!r}.")
        id_ = f"{name}-{own}"
        if id_ in ids:
            raise UserError(f"{row}: expected unique ids, found {id_.partition('-')[2]!r} also in {ids[id_]}.")
        ids[id_] = position
    seconds = tuple(pair[1] for pair in texts) if len(columns.text) == 2 else None
    split = Split(name, tuple(ids), tuple(text[0] for text in texts), seconds, np.array(classes, dtype=np.int64))
    split, notes = clean(split, source.clean)
    for number, text in enumerate(zip(split.texts, split.pairs or split.texts, strict=True)):
        for part in text:
            if any("\ud800" <= character <= "\udfff" for character in part):
                shown = part.encode("utf-8", "backslashreplace").decode()[:60]
                raise UserError(
                    f"{where}, {ids[split.ids[number]]}: the text has a broken character: {shown!r}. Save the file as "
                    "UTF-8, or mend the row."
                )
    return split, [f"{where}: {note}" for note in notes]


def _id_column(records: Sequence[Record]) -> str | None:
    """The column ``id``, if every row has one of its own."""
    values = [str(record.get("id", "")) for _, record in records]
    return "id" if "" not in values and len(set(values)) == len(values) else None


def _check_counts(people: Split, labels: tuple[str, ...], where: str) -> None:
    counts = np.bincount(people.labels, minlength=len(labels)).tolist()
    few = {label: count for label, count in zip(labels, counts, strict=True) if count < FOLDS}
    if few:
        text = ", ".join(f"{label!r} has {count}" for label, count in few.items())
        raise UserError(
            f"{where}: expected at least {FOLDS} rows of every label, one for each fold; {text}. Label more of them, "
            "or leave the label out of both files."
        )


def _with_verdicts(inputs: Inputs, path: Path) -> Inputs:
    """The rows after a review: written rows that were dropped are left out, relabeled ones have their new label."""
    where, records = _records(DataSource(file=str(path)))
    if taken := {KEEP, DROP} & set(inputs.labels):
        raise UserError(f"{where}: the label {min(taken)!r} is also a verdict; rename it in both files")
    known = {id_.partition("-")[2]: number for number, id_ in enumerate(inputs.written.ids)}
    classes = {label: index for index, label in enumerate(inputs.labels)}
    new = inputs.written.labels.copy()
    dropped: set[int] = set()
    confirmed: set[int] = set()
    kinds: Counter[str] = Counter()
    for position, record in records:
        row = f"{where}, {position}"
        value = column_of(record, "verdict", row)
        if value is None or value != value or str(value).strip() == "":  # NaN: an empty cell of a parquet file
            continue
        verdict, id_ = _label(value, "verdict", row), str(column_of(record, "id", row))
        if id_ not in known:
            raise unknown("id", id_, known, row)
        number = known[id_]
        if number in dropped | confirmed:
            raise UserError(f"{row}: expected one verdict for each id, found another one for {id_!r}.")
        if verdict == DROP:
            dropped.add(number)
            kinds["dropped"] += 1
        elif verdict == KEEP or classes.get(verdict) == inputs.written.labels[number]:
            confirmed.add(number)
            kinds["kept"] += 1
        elif verdict in classes:
            new[number] = classes[verdict]
            confirmed.add(number)
            kinds["relabeled"] += 1
        else:
            raise unknown("verdict", verdict, (KEEP, DROP, *inputs.labels), row)
    rows = replace(inputs.written, labels=new)
    left = [number for number in range(len(rows)) if number not in dropped]
    if not left:
        raise UserError(f"{where}: expected rows to be left, but every written row is dropped.")
    ids = frozenset(rows.ids[number] for number in confirmed)
    note = f"{where}: " + (", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no verdict")
    return replace(
        inputs, written=rows.take(left), notes=(*inputs.notes, note), confirmed=ids, reviewed=dict(kinds)
    )  # fmt: skip
