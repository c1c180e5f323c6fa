"""Statistics of texts: lengths, vocabulary, variety. All functions are pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_ORDERS = 4

Words = list[str]


@dataclass(frozen=True)
class Lengths:
    """Words per text: minimum, median, mean, 95th percentile, maximum."""

    least: int
    median: float
    mean: float
    p95: float
    most: int


def words(text: str) -> Words:
    """The lower-case words and punctuation marks of a text."""
    return _WORD.findall(text.lower())


def lengths(texts: Sequence[str]) -> Lengths:
    """Lengths in words, separated by white space."""
    counts = np.array([len(text.split()) for text in texts])
    p95 = float(np.percentile(counts, 95))
    return Lengths(int(counts.min()), float(np.median(counts)), float(counts.mean()), p95, int(counts.max()))


def ngrams(tokens: Words, order: int) -> list[tuple[str, ...]]:
    """The n-grams of one text, in order."""
    return [tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1)]


def distinct(texts: Sequence[Words], order: int) -> float:
    """distinct-n (Li et al. 2016): distinct n-grams as a share of all n-grams. It falls with the number of texts."""
    grams = [gram for tokens in texts for gram in ngrams(tokens, order)]
    return len(set(grams)) / len(grams) if grams else 0.0


def vocabulary_overlap(texts: Sequence[Words], others: Sequence[Words]) -> tuple[float, float]:
    """How much of the texts' vocabulary occurs in the others: (share of distinct words, share of running words)."""
    counts = Counter(word for tokens in texts for word in tokens)
    vocabulary = {word for tokens in others for word in tokens}
    shared = [word for word in counts if word in vocabulary]
    return len(shared) / max(len(counts), 1), sum(counts[word] for word in shared) / max(counts.total(), 1)


def jaccard(first: Collection[str], second: Collection[str]) -> float:
    """Jaccard similarity: common members of two sets as a share of all their members; 1 for two empty sets."""
    a, b = set(first), set(second)
    return len(a & b) / len(a | b) if a | b else 1.0


def self_bleu(texts: Sequence[Words]) -> float:
    """Mean BLEU-4 of each text against all others (Zhu et al. 2018): near 1 if texts repeat each other.

    Counts are clipped at the largest count in one other text. An order without a match counts as 0.1 matches; an order
    for which the text is too short counts as one n-gram without a match (method 1 of Chen and Cherry 2014). The brevity
    penalty uses the nearest length, of two equally near ones the shorter.

    Raises:
        ValueError: fewer than two texts.
    """
    if len(texts) < 2:
        raise ValueError(f"self-BLEU: expected at least two texts, got {len(texts)}")
    logs = np.zeros(len(texts))
    for order in range(1, _ORDERS + 1):
        logs += np.log(_precisions([Counter(ngrams(tokens, order)) for tokens in texts])) / _ORDERS
    sizes = [len(tokens) for tokens in texts]
    penalty = np.array([_brevity(size, sizes[:i] + sizes[i + 1 :]) for i, size in enumerate(sizes)])
    return float(np.mean(penalty * np.exp(logs)))


def _precisions(counts: list[Counter[tuple[str, ...]]]) -> np.typing.NDArray[np.float64]:
    """Clipped n-gram precision of each text against the others."""
    best: dict[tuple[str, ...], tuple[int, int, int]] = {}  # largest count, text that has it, second largest count
    for owner, grams in enumerate(counts):
        for gram, count in grams.items():
            first, first_owner, second = best.get(gram, (0, -1, 0))
            best[gram] = (count, owner, first) if count > first else (first, first_owner, max(second, count))
    out = []
    for owner, grams in enumerate(counts):
        matches = 0
        for gram, count in grams.items():
            first, first_owner, second = best[gram]
            matches += min(count, second if first_owner == owner else first)
        out.append((matches or 0.1) / max(grams.total(), 1))
    return np.array(out)


def _brevity(size: int, others: list[int]) -> float:
    """Brevity penalty of a text with ``size`` words; ``others`` are the lengths of the other texts."""
    nearest = min(others, key=lambda other: (abs(other - size), other))
    return 1.0 if size > nearest else float(np.exp(1.0 - nearest / max(size, 1)))
