from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.cleaning import STEPS, clean
from harness.data.mojibake import mend
from harness.data.split import Split
from harness.errors import UserError


def rows(*texts: str, labels: list[int] | None = None, pairs: tuple[str, ...] | None = None) -> Split:
    classes = np.array(labels or [0] * len(texts), dtype=np.int64)
    return Split("tweets", tuple(map(str, range(len(texts)))), texts, pairs, classes)


def undecoded(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"Uber_\xd1\xe9s", "Uber’s"),
        (b"don\x8a\x97\xc8t", "don’t"),
        (b"\xe4\xf3\xecgrippiness\xe4\xf3\x9d", "“grippiness”"),
        (b"I don\xd5\xa2_\x8a\xce_\x86\xa2t", "I don’t"),
        (b"lol _\xf4\xd6\x89_\xf4\xd6\x89", "lol 😂😂"),
        (b"fianc\x92\xa9e", "fianc\N{LATIN SMALL LETTER E WITH ACUTE}e"),
        (b"which one _\x99\x85_", "which one  "),
        (b"snake_case stays", "snake_case stays"),
    ],
)
def test_mend(raw, expected):
    assert mend(undecoded(raw)) == expected


@given(st.binary())
def test_mending_takes_any_bytes(raw):
    assert isinstance(mend(undecoded(raw)), str)


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        ("unescape", ("a &amp; b &lt;3",), ("a & b <3",)),
        ("collapse_whitespace", (" a\r\rb \t c ",), ("a b c",)),
        ("drop_empty", ("a", "  ", ""), ("a",)),
        ("drop_broken", ("fine 😂", "bad \ufffd", "bad \udc80", "bad \x9d", "bad _’…’_"), ("fine 😂",)),
        (
            "drop_retweets",
            ("RT @a: hi", "“RT @a hi", "MT @b hi", "art @a", "no RT of mine"),
            ("art @a", "no RT of mine"),
        ),
        ("drop_duplicates", ("See http://t.co/a", "see  http://t.co/b", "other"), ("See http://t.co/a", "other")),
    ],
)
def test_steps(step, before, after):
    assert STEPS[step](rows(*before)).texts == after


def test_duplicates_with_conflicting_labels_are_all_dropped():
    split = STEPS["drop_duplicates"](rows("same", "Same", "sure", "sure", labels=[0, 1, 2, 2]))
    assert (split.texts, split.labels.tolist()) == (("sure",), [2])


def test_both_texts_of_a_pair_are_cleaned():
    pair = rows("a &amp; b", "c", pairs=("d &gt; e", " "))
    split, notes = clean(pair, ["unescape", "drop_empty"])
    assert (split.texts, split.pairs) == (("a & b",), ("d > e",))
    assert notes == ["tweets: unescape changed 1 texts", "tweets: drop_empty left out 1 rows"]


def test_pairs_are_duplicates_only_if_both_texts_are():
    assert len(STEPS["drop_duplicates"](rows("a", "a", "A", pairs=("x", "y", "X")))) == 2


def test_unknown_step():
    with pytest.raises(UserError) as error:
        clean(rows("a"), ["drop_duplicate"])
    assert str(error.value) == (
        "unknown cleaning step 'drop_duplicate' in tweets: clean. Did you mean 'drop_duplicates'? Known: collapse_"
        "whitespace, drop_broken, drop_duplicates, drop_empty, drop_retweets, mend_mojibake, unescape."
    )
