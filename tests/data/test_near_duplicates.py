from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.near_duplicates import groups, matches, normalize, shingles

TEXTS = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "d", "😀", "@x", "7"]), max_size=7).map(" ".join), max_size=14
)
THRESHOLDS = st.sampled_from([0.2, 1 / 3, 0.5, 0.75, 0.8, 1.0])


def jaccard(a: str, b: str) -> float:
    first, second = shingles(a), shingles(b)
    return len(first & second) / len(first | second)


@settings(deadline=None)
@given(TEXTS, THRESHOLDS)
def test_groups_are_the_components_of_all_similar_pairs(texts, threshold):
    expected = list(range(len(texts)))
    for i, j in combinations(range(len(texts)), 2):
        if jaccard(texts[i], texts[j]) >= threshold:
            expected = [expected[i] if number == expected[j] else number for number in expected]
    group = groups(texts, threshold)
    assert all((group[i] == group[j]) == (expected[i] == expected[j]) for i, j in combinations(range(len(texts)), 2))


@settings(deadline=None)
@given(TEXTS, TEXTS, THRESHOLDS)
def test_matches_are_pairs_without_chains(texts, others, threshold):
    expected = [any(jaccard(text, other) >= threshold for other in others) for text in texts]
    assert matches(texts, others, threshold).tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RT @Bob: Read THIS!! http://t.co/xY 12,000 times", "rt user read this url number times"),
        ("😀😀", "😀😀"),
        ("  ", ""),
    ],
)
def test_normalize(text, expected):
    assert normalize(text) == expected


def test_texts_of_one_word_are_near_duplicates_of_themselves_only():
    group = groups(["Thanks!", "thanks", "thanks a lot", "😀", "😡"], 0.8)
    assert group[0] == group[1]
    assert len(np.unique(group)) == 4
