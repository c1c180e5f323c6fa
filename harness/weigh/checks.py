"""What is wrong with the rows before any training: copies, other languages, broken characters, missing labels."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.data.folds import NEAR_DUPLICATE
from harness.data.near_duplicates import groups, matches, normalize
from harness.data.split import Split, row_texts
from harness.errors import UserError
from harness.weigh.reading import Inputs

#: The most frequent words of the human rows, by which a language is recognized, and the least share of their usual
#: frequency in the written rows.
FREQUENT, LEAST_SHARE = 30, 0.25
#: Rows of a label below which a result for it means little.
FEW = 15
EAST_ASIAN = "CHINESE OR JAPANESE"
#: What UTF-8 looks like when it was read as another encoding.
_BROKEN = re.compile("\ufffd|Ã[\x80-\xbf]|â€")


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates among all rows.

    Attributes:
        of_people: written id -> id of the human row that it copies; such rows are not trained on.
        of_written: written id -> id of the first written row that is near it.
    """

    of_people: dict[str, str]
    of_written: dict[str, str]


def find_duplicates(people: Split, written: Split) -> Duplicates:
    """Which written rows are near-duplicates of human rows, or of earlier written ones."""
    ours, theirs = row_texts(people), row_texts(written)
    copies = matches(theirs, ours, NEAR_DUPLICATE)
    group = groups((*ours, *theirs), NEAR_DUPLICATE)
    first_person: dict[int, str] = {}
    for id_, number in zip(people.ids, group[: len(people)].tolist(), strict=True):
        first_person.setdefault(number, id_)
    first_written: dict[int, str] = {}
    of_people, of_written = {}, {}
    for id_, number, copy in zip(written.ids, group[len(people) :].tolist(), copies.tolist(), strict=True):
        if copy:
            of_people[id_] = first_person[number]
        elif first_written.setdefault(number, id_) != id_:
            of_written[id_] = first_written[number]
    return Duplicates(of_people, of_written)


def check(inputs: Inputs, duplicates: Duplicates) -> list[str]:
    """Sentences on what a user should know of the rows.

    Raises:
        UserError: all written rows are copies of human rows, or they are written in another script.
    """
    people, written = inputs.people, inputs.written
    if len(duplicates.of_people) == len(written):
        raise UserError(
            f"all {len(written)} written rows are copies or near-copies of human rows: there is nothing to weigh. "
            "Check that the two files are different."
        )
    notes = _script(people, written) + _language(people, written) + _broken(people) + _broken(written)
    if copies := len(duplicates.of_people):
        notes.append(f"Copies or near-copies of human rows among the written ones, not trained on: {copies}.")
    if repeated := len(duplicates.of_written):
        notes.append(f"Near-duplicates of other rows among the written ones: {repeated} of {len(written)}.")
    return notes + _labels(inputs) + _contradictions(people)


def _labels(inputs: Inputs) -> list[str]:
    size = len(inputs.labels)
    people = np.bincount(inputs.people.labels, minlength=size).tolist()
    written = np.bincount(inputs.written.labels, minlength=size).tolist()
    notes = []
    missing = [label for label, count in zip(inputs.labels, written, strict=True) if not count]
    if missing:
        notes.append(f"Labels that no written row has: {', '.join(missing)}. Written rows alone cannot teach them.")
    few = [f"{label} ({count})" for label, count in zip(inputs.labels, people, strict=True) if count < FEW]
    if few:
        notes.append(f"Labels of few human rows: {', '.join(few)}. Expect wide intervals.")
    return notes


def _contradictions(people: Split) -> list[str]:
    """Near-duplicate human rows with different labels."""
    labels: dict[int, set[int]] = {}
    group = groups(row_texts(people), NEAR_DUPLICATE)
    for number, label in zip(group.tolist(), people.labels.tolist(), strict=True):
        labels.setdefault(number, set()).add(label)
    count = sum(len(values) > 1 for values in labels.values())
    return [f"Groups of near-duplicate human rows with different labels: {count}. Check them."] if count else []


def _script(people: Split, written: Split) -> list[str]:
    """A note if most letters of the two files are of different scripts; an error if they share none."""
    ours, theirs = _scripts(row_texts(people)), _scripts(row_texts(written))
    if not ours or not theirs:
        return []
    first, second = (max(counts, key=lambda script: counts[script]) for counts in (ours, theirs))
    if first == second:
        return []
    text = f"most letters of the human rows are {first.title()}, most of the written rows {second.title()}"
    if ours[second] < ours.total() / 100 and theirs[first] < theirs.total() / 100:
        raise UserError(f"{text}: expected one language. Check that the files belong together, and their encodings.")
    return [f"{text[0].upper()}{text[1:]}: one language?"]


def _scripts(texts: Sequence[str]) -> Counter[str]:
    """Script -> number of letters in it, e.g. LATIN."""
    counts: Counter[str] = Counter()
    for character, count in Counter("".join(texts)).items():
        if character.isalpha():
            script = unicodedata.name(character, "UNKNOWN").partition(" ")[0]
            counts[EAST_ASIAN if script in ("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO") else script] += count
    return counts


def _language(people: Split, written: Split) -> list[str]:
    """A note if the usual words of the human rows, such as "the" and "of", are rare in the written rows."""
    ours, theirs = (Counter(" ".join(map(normalize, row_texts(split))).split()) for split in (people, written))
    frequent = [word for word, _ in ours.most_common(FREQUENT)]
    share = sum(ours[word] for word in frequent) / max(1, ours.total())
    other = sum(theirs[word] for word in frequent) / max(1, theirs.total())
    if other >= LEAST_SHARE * share:
        return []
    return [
        f"The {FREQUENT} most frequent words of the human rows are {100 * share:.0f} % of their words but only "
        f"{100 * other:.0f} % of those of the written rows: another language or another kind of text?"
    ]


def _broken(split: Split) -> list[str]:
    """A note if more than one row in a hundred has characters that a wrong encoding leaves."""
    count = sum(bool(_BROKEN.search(text)) for text in row_texts(split))
    if count <= len(split) // 100:
        return []
    kind = "human" if split.name == "people" else "written"
    return [f"Broken characters in {count} of {len(split)} {kind} rows: saved in a wrong encoding?"]
