"""What can be said of a benchmark's data without training: sizes, variety, duplicates, distance from real text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.benchmark import Benchmark, CorruptedSplit
from harness.data.bag_of_words import BagOfWords
from harness.data.benchmarks import joined, load
from harness.data.distributions import Distance, distance
from harness.data.near_duplicates import groups, matches
from harness.data.partition import limit
from harness.data.split import Split
from harness.data.text_statistics import (
    Lengths,
    Words,
    distinct,
    jaccard,
    lengths,
    self_bleu,
    vocabulary_overlap,
    words,
)
from harness.seeds import generator

#: Jaccard similarities of word bigrams at which near-duplicates are counted
THRESHOLDS = (0.8, 0.5, 0.3)
#: at most so many rows measure variety, as many for each split: distinct-n and self-BLEU depend on their number
SAMPLE = 500
#: at most so many rows of a split (stratified) train or test a bag-of-words classifier
CLASSIFIED = 5000
#: parts in which the generated rows are predicted, each by a classifier trained on the others
FOLDS = 5
_TRAINED = ("real_small", "generated", "real_large")


@dataclass(frozen=True)
class SplitFigures:
    """One split by itself.

    Attributes:
        split: its name.
        rows: how many.
        shares: label -> share of the rows.
        words: lengths; of a pair, both texts together.
        words_by_label: label -> mean length.
        pair_overlap: label -> mean Jaccard similarity of the words of a pair's two texts; empty for single texts.
        vocabulary: different words and punctuation marks.
        distinct: n -> distinct-n on a sample, n = 1, 2, 3.
        self_bleu: on the same sample; None for a single row.
        equal: rows whose text stood before.
        near: threshold -> groups of near-duplicates, chains of them being one group.
    """

    split: str
    rows: int
    shares: dict[str, float]
    words: Lengths
    words_by_label: dict[str, float]
    pair_overlap: dict[str, float]
    vocabulary: int
    distinct: dict[int, float]
    self_bleu: float | None
    equal: int
    near: dict[float, int]


@dataclass(frozen=True)
class Overlap:
    """The generated split against a real one.

    Attributes:
        split: the real split.
        types: share of the generated rows' different words that the real split has.
        tokens: share of their running words that it has.
        covered: share of the real split's running words that the generated rows have.
        equal: generated rows whose text is in the real split.
        near: threshold -> generated rows with a near-duplicate in the real split.
    """

    split: str
    types: float
    tokens: float
    covered: float
    equal: int
    near: dict[float, int]


@dataclass(frozen=True)
class Transfer:
    """A bag-of-words classifier trained on one split, tested on another."""

    trained: str
    tested: str
    accuracy: float
    f1: float


@dataclass(frozen=True)
class Check:
    """All figures of a benchmark.

    ``sample`` is the number of rows behind distinct-n and self-BLEU; ``distance`` is None without generated rows, or
    where a class is missing from the rows that would train a checker.
    """

    benchmark: str
    labels: tuple[str, ...]
    sample: int
    splits: tuple[SplitFigures, ...]
    overlaps: tuple[Overlap, ...]
    transfers: tuple[Transfer, ...]
    distance: Distance | None

    def as_json(self) -> dict[str, Any]:
        """Everything in JSON's types."""
        return asdict(self)


def check(benchmark: Benchmark, cache: Path | None = None) -> Check:
    """The figures of a benchmark's splits as they are before ``limits``; spoiled splits are left out.

    Args:
        benchmark: any benchmark, with or without generated rows.
        cache: a folder for finished splits.

    Raises:
        UserError: a split cannot be read (see ``benchmarks.load``).
    """
    names = [name for name, entry in benchmark.splits.items() if not isinstance(entry, CorruptedSplit)]
    splits = load(benchmark.model_copy(update={"limits": {}}), names, cache)
    tokens = {name: [words(text) for text in joined(split)] for name, split in splits.items()}
    sample = min(SAMPLE, *map(len, splits.values()))
    figures = tuple(_figures(split, tokens[name], benchmark.labels, sample) for name, split in splits.items())
    real = [name for name in splits if name != "generated"]
    overlaps = tuple(_overlap(splits, tokens, name) for name in real) if "generated" in splits else ()
    rows = {name: limit(split, CLASSIFIED) for name, split in splits.items()}
    models = {
        name: BagOfWords(rows[name]) for name in _TRAINED if name in rows and len(np.unique(rows[name].labels)) > 1
    }
    transfers, apart = _transfers(rows, models), _distance(rows, models)
    return Check(benchmark.name, benchmark.labels, sample, figures, overlaps, transfers, apart)


def _figures(split: Split, tokens: list[Words], labels: tuple[str, ...], sample: int) -> SplitFigures:
    texts = joined(split)
    present = [(label, np.flatnonzero(split.labels == index)) for index, label in enumerate(labels)]
    present = [(label, rows) for label, rows in present if len(rows)]
    chosen = generator(0, "check", split.name).choice(len(split), size=sample, replace=False)
    sampled = [tokens[i] for i in chosen]
    pairs = list(zip(split.texts, split.pairs, strict=True)) if split.pairs else []
    overlap = [jaccard(words(first), words(second)) for first, second in pairs]
    return SplitFigures(
        split=split.name,
        rows=len(split),
        shares={label: len(rows) / len(split) for label, rows in present},
        words=lengths(texts),
        words_by_label={label: lengths([texts[i] for i in rows]).mean for label, rows in present},
        pair_overlap={label: float(np.mean([overlap[i] for i in rows])) for label, rows in present} if overlap else {},
        vocabulary=len({word for row in tokens for word in row}),
        distinct={order: distinct(sampled, order) for order in (1, 2, 3)},
        self_bleu=self_bleu(sampled) if sample > 1 else None,
        equal=len(texts) - len(set(texts)),
        near={at: int((np.bincount(groups(texts, at)) > 1).sum()) for at in THRESHOLDS},
    )


def _overlap(splits: dict[str, Split], tokens: dict[str, list[Words]], name: str) -> Overlap:
    generated, real = joined(splits["generated"]), joined(splits[name])
    known = set(real)
    types, running = vocabulary_overlap(tokens["generated"], tokens[name])
    return Overlap(
        split=name,
        types=types,
        tokens=running,
        covered=vocabulary_overlap(tokens[name], tokens["generated"])[1],
        equal=sum(text in known for text in generated),
        near={at: int(matches(generated, real, at).sum()) for at in THRESHOLDS},
    )


def _transfers(rows: dict[str, Split], models: dict[str, BagOfWords]) -> tuple[Transfer, ...]:
    return tuple(
        Transfer(trained, tested, *model.evaluate(rows[tested]))
        for trained, model in models.items()
        for tested in rows
        if tested != trained
    )


def _distance(rows: dict[str, Split], models: dict[str, BagOfWords]) -> Distance | None:
    """Distribution measures with bag-of-words classifiers as checkers, none of which has seen the rows it judges."""
    from sklearn.model_selection import StratifiedKFold

    if "generated" not in rows:
        return None
    real, generated, test = (rows[name] for name in ("real_small", "generated", "test"))
    classes = np.unique(test.labels)
    enough = np.array_equal(np.unique(real.labels), classes) and np.array_equal(np.unique(generated.labels), classes)
    if not enough or np.bincount(generated.labels).min() < FOLDS:
        return None
    quality, diversity = models["real_small"], models["generated"]
    unseen = np.zeros((len(generated), len(classes)))
    parts = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(generated.labels, generated.labels)
    for trained, held in parts:
        unseen[held] = BagOfWords(generated.take(trained)).log_probabilities(generated.take(held))
    judged = (quality.log_probabilities(test), diversity.log_probabilities(test))
    return distance(*judged, quality.log_probabilities(generated), unseen)
