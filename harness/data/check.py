"""Statistics of a benchmark's data without fine-tuning: sizes, variety, duplicates, distance from real text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.benchmark import Benchmark, CorruptedSplit
from harness.data.bag_of_words import BagOfWords
from harness.data.benchmarks import load
from harness.data.distributions import Distance, distance
from harness.data.near_duplicates import groups, matches
from harness.data.partition import limit
from harness.data.split import Split, row_texts
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

#: Jaccard similarities of word bigrams from which rows count as near-duplicates.
THRESHOLDS = (0.8, 0.5, 0.3)
#: Largest sample for distinct-n and self-BLEU. They depend on its size, which is therefore the same for every split.
SAMPLE = 500
#: Most rows of a split (stratified) that train or test a bag-of-words classifier.
CLASSIFIER_ROWS = 5000
#: Cross-validation folds for predictions on the generated rows.
FOLDS = 5
_TRAINING_SPLITS = ("real_small", "generated", "real_large")


@dataclass(frozen=True)
class SplitFigures:
    """Statistics of one split.

    Attributes:
        split: its name.
        rows: how many.
        shares: label -> share of the rows.
        words: lengths in words; of a pair, both texts together.
        words_by_label: label -> mean length in words.
        pair_overlap: label -> mean Jaccard similarity of the words of a pair's two texts; empty for single texts.
        vocabulary: different words and punctuation marks.
        distinct: n -> distinct-n on a sample, n = 1, 2, 3.
        self_bleu: on the same sample; None for a sample of one row.
        equal: rows with the text of an earlier row.
        near: threshold -> number of groups of near-duplicates; a group is connected by chains of similar pairs.
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
    """The generated split compared with a real one.

    Attributes:
        split: name of the real split.
        types: share of the generated rows' distinct words that occur in the real split.
        tokens: share of the generated rows' running words that occur in the real split.
        covered: share of the real split's running words that occur in the generated rows.
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
    """Accuracy and macro F1 of a bag-of-words classifier, trained on one split and tested on another."""

    trained: str
    tested: str
    accuracy: float
    f1: float


@dataclass(frozen=True)
class Check:
    """All statistics of a benchmark.

    Attributes:
        benchmark: its name.
        labels: label names, in the order of the class indices.
        sample: number of rows in the samples for distinct-n and self-BLEU.
        splits: statistics of each split.
        overlaps: the generated split compared with each other split; empty without generated rows.
        transfers: classifiers trained on one split, tested on another.
        distance: None without generated rows, or where the rows of a checker lack a class.
    """

    benchmark: str
    labels: tuple[str, ...]
    sample: int
    splits: tuple[SplitFigures, ...]
    overlaps: tuple[Overlap, ...]
    transfers: tuple[Transfer, ...]
    distance: Distance | None

    def as_json(self) -> dict[str, Any]:
        """All fields as types that JSON knows."""
        return asdict(self)


def check(benchmark: Benchmark, cache: Path | None = None) -> Check:
    """The statistics of a benchmark's splits before ``limits``, without its corrupted splits.

    Args:
        benchmark: any benchmark, with or without generated rows.
        cache: a folder for finished splits.

    Raises:
        UserError: a split cannot be loaded (see ``benchmarks.load``).
    """
    names = [name for name, entry in benchmark.splits.items() if not isinstance(entry, CorruptedSplit)]
    splits = load(benchmark.model_copy(update={"limits": {}}), names, cache)
    tokens = {name: [words(text) for text in row_texts(split)] for name, split in splits.items()}
    sample = min(SAMPLE, *map(len, splits.values()))
    figures = tuple(_figures(split, tokens[name], benchmark.labels, sample) for name, split in splits.items())
    real = [name for name in splits if name != "generated"]
    overlaps = tuple(_overlap(splits, tokens, name) for name in real) if "generated" in splits else ()
    rows = {name: limit(split, CLASSIFIER_ROWS) for name, split in splits.items()}
    models = {
        name: BagOfWords(rows[name])
        for name in _TRAINING_SPLITS
        if name in rows and len(np.unique(rows[name].labels)) > 1
    }
    transfers, label_distance = _transfers(rows, models), _distance(rows, models)
    return Check(benchmark.name, benchmark.labels, sample, figures, overlaps, transfers, label_distance)


def _figures(split: Split, tokens: list[Words], labels: tuple[str, ...], sample: int) -> SplitFigures:
    texts = row_texts(split)
    present = [(label, np.flatnonzero(split.labels == index)) for index, label in enumerate(labels)]
    present = [(label, rows) for label, rows in present if len(rows)]
    sample_rows = generator(0, "check", split.name).choice(len(split), size=sample, replace=False)
    sample_tokens = [tokens[i] for i in sample_rows]
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
        distinct={order: distinct(sample_tokens, order) for order in (1, 2, 3)},
        self_bleu=self_bleu(sample_tokens) if sample > 1 else None,
        equal=len(texts) - len(set(texts)),
        near={threshold: int((np.bincount(groups(texts, threshold)) > 1).sum()) for threshold in THRESHOLDS},
    )


def _overlap(splits: dict[str, Split], tokens: dict[str, list[Words]], name: str) -> Overlap:
    generated, real = row_texts(splits["generated"]), row_texts(splits[name])
    known = set(real)
    types, running = vocabulary_overlap(tokens["generated"], tokens[name])
    return Overlap(
        split=name,
        types=types,
        tokens=running,
        covered=vocabulary_overlap(tokens[name], tokens["generated"])[1],
        equal=sum(text in known for text in generated),
        near={threshold: int(matches(generated, real, threshold).sum()) for threshold in THRESHOLDS},
    )


def _transfers(rows: dict[str, Split], models: dict[str, BagOfWords]) -> tuple[Transfer, ...]:
    return tuple(
        Transfer(training, test, *model.evaluate(rows[test]))
        for training, model in models.items()
        for test in rows
        if test != training
    )


def _distance(rows: dict[str, Split], models: dict[str, BagOfWords]) -> Distance | None:
    """Distances with bag-of-words classifiers as checkers, each evaluated only on rows that it was not trained on."""
    from sklearn.model_selection import StratifiedKFold

    if "generated" not in rows:
        return None
    real, generated, test = (rows[name] for name in ("real_small", "generated", "test"))
    classes = np.unique(test.labels)
    same_classes = all(np.array_equal(np.unique(split.labels), classes) for split in (real, generated))
    if not same_classes or np.bincount(generated.labels).min() < FOLDS:
        return None
    quality, diversity = models["real_small"], models["generated"]
    diversity_generated = np.zeros((len(generated), len(classes)))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(generated.labels, generated.labels)
    for training, held_out in folds:
        model = BagOfWords(generated.take(training))
        diversity_generated[held_out] = model.log_probabilities(generated.take(held_out))
    return distance(
        quality.log_probabilities(test),
        diversity.log_probabilities(test),
        quality.log_probabilities(generated),
        diversity_generated,
    )
