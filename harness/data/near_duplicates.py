"""Near-duplicate texts: Jaccard similarity of word-bigram sets, exact, without comparing all pairs.

Two sets that reach the threshold share a member among the few rarest of each, so only pairs that do are compared
(prefix filtering, Chaudhuri et al. 2006; Bayardo et al. 2007).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from harness.data.split import IntArray

if TYPE_CHECKING:  # planning starts without scipy: functions import it
    from scipy.sparse import csr_matrix

_BLOCK = 4096
_URL = re.compile(r"(?:https?://|www\.)\S*")
_MENTION = re.compile(r"@\w+")
_NUMBER = re.compile(r"\d[\d.,:]*")
_WORD = re.compile(r"\w+")


def normalize(text: str) -> str:
    """Lower-case words, separated by one space; links, mentions and numbers become the words url, user and number.

    A text without words (e.g. only emoji) is only stripped.
    """
    text = text.lower()
    for pattern, word in ((_URL, " url "), (_MENTION, " user "), (_NUMBER, " number ")):
        text = pattern.sub(word, text)
    return " ".join(_WORD.findall(text)) or text.strip()


def shingles(text: str) -> frozenset[str]:
    """The word bigrams of the normalized text; the text itself if it has fewer than two words."""
    words = normalize(text).split(" ")
    return frozenset(f"{a} {b}" for a, b in pairwise(words)) or frozenset((words[0],))


def groups(texts: Sequence[str], threshold: float) -> IntArray:
    """The near-duplicate group of every text; chains of pairs with Jaccard >= ``threshold`` connect a group.

    Returns:
        Group numbers from 0, int64 [n].
    """
    from scipy import sparse
    from scipy.sparse import csgraph

    inverse, left, right = _similar(texts, threshold)
    size = int(inverse.max(initial=-1)) + 1
    graph = sparse.coo_matrix((np.ones(len(left), dtype=bool), (left, right)), shape=(size, size))
    components = csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
    return np.asarray(components[inverse])


def matches(texts: Sequence[str], others: Sequence[str], threshold: float) -> np.typing.NDArray[np.bool_]:
    """Which of ``texts`` have Jaccard >= ``threshold`` with one of ``others``, chains aside: bool [len(texts)]."""
    inverse, left, right = _similar([*texts, *others], threshold)
    in_others = np.zeros(int(inverse.max(initial=-1)) + 1, dtype=bool)
    in_others[inverse[len(texts) :]] = True
    near = in_others.copy()
    near[left[in_others[right]]] = True
    near[right[in_others[left]]] = True
    return np.asarray(near[inverse[: len(texts)]])


def _similar(texts: Sequence[str], threshold: float) -> tuple[IntArray, IntArray, IntArray]:
    """The similar pairs among the distinct shingle sets of n texts.

    Returns:
        Number of each text's shingle set [n], and the numbers of the two sets of every similar pair [m], [m].
    """
    numbers: dict[frozenset[str], int] = {}
    inverse = np.array([numbers.setdefault(shingles(text), len(numbers)) for text in texts], dtype=np.int64)
    sets = list(numbers)
    frequencies = Counter(item for members in sets for item in members)
    by_frequency = sorted(frequencies.items(), key=lambda entry: (entry[1], entry[0]))
    rank = {item: number for number, (item, _) in enumerate(by_frequency)}
    rarest_first = [sorted(rank[item] for item in members) for members in sets]
    # slightly below the exact bound: rounding may add candidates, but never lose one
    prefixes = [row[: len(row) - math.ceil(threshold * len(row) - 1e-9) + 1] for row in rarest_first]
    left, right = _sharing(_matrix(prefixes, len(rank)))
    full = _matrix(rarest_first, len(rank))
    sizes = np.diff(full.indptr)
    similar = np.zeros(len(left), dtype=bool)
    for start in range(0, len(left), _BLOCK * 16):
        block = slice(start, start + _BLOCK * 16)
        shared = np.asarray(full[left[block]].multiply(full[right[block]]).sum(axis=1)).ravel()
        similar[block] = shared / (sizes[left[block]] + sizes[right[block]] - shared) >= threshold
    return inverse, left[similar], right[similar]


def _sharing(rows: csr_matrix) -> tuple[IntArray, IntArray]:
    """The pairs i < j of rows with a common column: [m], [m]."""
    left, right = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    columns = rows.T.tocsr()
    for start in range(0, rows.shape[0], _BLOCK):
        products = (rows[start : start + _BLOCK] @ columns).tocoo()
        first, second = products.row.astype(np.int64) + start, products.col.astype(np.int64)
        left.append(first[first < second])
        right.append(second[first < second])
    return np.concatenate(left), np.concatenate(right)


def _matrix(rows: list[list[int]], width: int) -> csr_matrix:
    """A matrix [len(rows), width] with ones in the columns of each row."""
    from scipy import sparse

    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.fromiter((column for row in rows for column in row), dtype=np.int64, count=int(indptr[-1]))
    return sparse.csr_matrix((np.ones(len(indices), dtype=np.int32), indices, indptr), shape=(len(rows), width))
