"""Cleaning steps for the list ``clean`` of a source, each a pure function from rows to rows."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.data.mojibake import mend
from harness.data.split import Split
from harness.errors import unknown

Step = Callable[[Split], Split]

#: Undecodable bytes, U+FFFD, control characters, and the remains of emoji that could not be restored.
_BROKEN = re.compile(r"[\ud800-\udfff\ufffd\x00-\x08\x0e-\x1f\x7f-\x9f]|_’|’_")
_RETWEET = re.compile(r"\s*[\"“]?(?:RT|MT)\b[\s:]*@", re.IGNORECASE)
_URL = re.compile(r"https?://\S*")


def _each(change: Callable[[str], str]) -> Step:
    """A step that applies ``change`` to every text, both texts of a pair included."""

    def step(rows: Split) -> Split:
        pairs = None if rows.pairs is None else tuple(map(change, rows.pairs))
        return replace(rows, texts=tuple(map(change, rows.texts)), pairs=pairs)

    return step


def _without(condition: Callable[[str], object]) -> Step:
    """A step that removes rows with a text, or a text of the pair, that meets ``condition``."""

    def step(rows: Split) -> Split:
        pairs = zip(rows.texts, rows.pairs or rows.texts, strict=True)
        return rows.take([i for i, pair in enumerate(pairs) if not any(map(condition, pair))])

    return step


def drop_duplicates(rows: Split) -> Split:
    """Keep the first of rows with equal texts (up to case, white space, links); none of them if their labels differ."""
    keys = [
        tuple(" ".join(_URL.sub("url", text).casefold().split()) for text in pair)
        for pair in zip(rows.texts, rows.pairs or rows.texts, strict=True)
    ]
    first: dict[tuple[str, ...], int] = {}
    conflicts = set()
    for i, key in enumerate(keys):
        if rows.labels[first.setdefault(key, i)] != rows.labels[i]:
            conflicts.add(key)
    return rows.take([i for key, i in first.items() if key not in conflicts])


STEPS: dict[str, Step] = {
    "mend_mojibake": _each(mend),
    "unescape": _each(html.unescape),
    "collapse_whitespace": _each(lambda text: " ".join(text.split())),
    "drop_empty": _without(lambda text: not text.strip()),
    "drop_broken": _without(_BROKEN.search),
    "drop_retweets": _without(_RETWEET.match),
    "drop_duplicates": drop_duplicates,
}


def clean(rows: Split, steps: Sequence[str]) -> tuple[Split, list[str]]:
    """Apply the named steps in order.

    Returns:
        The cleaned rows, and for each step a note: how many texts it changed or how many rows it left out.

    Raises:
        UserError: a step is unknown.
    """
    notes = []
    for name in steps:
        if name not in STEPS:
            raise unknown("cleaning step", name, STEPS, f"{rows.name}: clean")
        before, rows = rows, STEPS[name](rows)
        if name.startswith("drop_"):
            notes.append(f"{rows.name}: {name} left out {len(before) - len(rows)} rows")
        else:
            changed = sum(a != b for a, b in zip(before.texts, rows.texts, strict=True))
            notes.append(f"{rows.name}: {name} changed {changed} texts")
    return rows, notes
