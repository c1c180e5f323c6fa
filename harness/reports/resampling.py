"""Resampling of test rows: the scores that every trial would have on other test sets of the same size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.metrics import ACCURACY, MACRO_F1
from harness.seeds import generator

FloatArray = npt.NDArray[np.float64]
SmallFloatArray = npt.NDArray[np.float32]
Classes = npt.NDArray[np.signedinteger[Any]]

#: Resamples of the test rows. Their covariance is known to about 5 %, the width of an interval to half of that.
DRAWS = 1000
#: Numbers in a block of counts or of indicators; bounds the memory.
BLOCK = 8_000_000


@dataclass(frozen=True)
class TestPredictions:
    """Predictions of the test rows of a benchmark.

    Attributes:
        truth: class indices [n].
        classes: number of classes.
        predicted: trial id -> class indices [n], -1 for a row without a prediction.
        ids: of the rows.
    """

    __test__ = False  # pytest takes the name for a test's

    truth: Classes
    classes: int
    predicted: dict[str, Classes] = field(default_factory=dict)
    ids: tuple[str, ...] = ()


def on_the_same_rows(
    first: Mapping[str, TestPredictions], second: Mapping[str, TestPredictions]
) -> dict[str, TestPredictions]:
    """The predictions of two experiments together, of the benchmarks whose test rows are the same in both."""
    return {
        name: TestPredictions(one.truth, one.classes, one.predicted | other.predicted, one.ids)
        for name, one in first.items()
        if (other := second.get(name)) is not None
        and (one.ids, one.classes) == (other.ids, other.classes)
        and np.array_equal(one.truth, other.truth)
    }


class ResampledScores:
    """Scores of trials on resampled test rows.

    All trials of a benchmark get the same resamples, so that differences are paired by row. They are computed once a
    benchmark, when a score is first asked for.

    Args:
        predictions: by benchmark.
    """

    def __init__(self, predictions: Mapping[str, TestPredictions]) -> None:
        self._predictions = predictions
        self._scores: dict[str, dict[str, SmallFloatArray]] = {}
        self._positions = {
            name: {trial: i for i, trial in enumerate(benchmark.predicted)} for name, benchmark in predictions.items()
        }

    def of(self, benchmark: str, trials: Sequence[str], column: str) -> FloatArray | None:
        """The scores [trials, DRAWS] in a column of results, e.g. ``test_f1``.

        None if the predictions of any of the trials are unknown, or if the column is no score of predicted classes.
        """
        positions = self._positions.get(benchmark, {})
        if not trials or column not in COLUMNS or not all(trial in positions for trial in trials):
            return None
        if benchmark not in self._scores:
            self._scores[benchmark] = self._compute(benchmark)
        return self._scores[benchmark][column][[positions[trial] for trial in trials]].astype(np.float64)

    def _compute(self, benchmark: str) -> dict[str, SmallFloatArray]:
        predictions = self._predictions[benchmark]
        rows, trials = len(predictions.truth), list(predictions.predicted.values())
        scores = {column: np.empty((len(trials), DRAWS), np.float32) for column in COLUMNS}
        per_block = max(1, BLOCK // (rows * 2 * predictions.classes))
        for first in range(0, len(trials), per_block):
            block = np.stack(trials[first : first + per_block])
            rng = generator(0, "test rows", benchmark)  # the same resamples for every block
            start = 0
            for counts in row_counts(rows, DRAWS, rng):
                parts = weighted_scores(block, predictions.truth, predictions.classes, counts)
                for column, values in parts.items():
                    scores[column][first : first + len(block), start : start + len(counts)] = values
                start += len(counts)
        return scores


def row_counts(rows: int, draws: int, rng: np.random.Generator) -> Iterator[SmallFloatArray]:
    """How often each row is in each resample with replacement: blocks [up to ``draws``, rows], ``draws`` in total."""
    per_block = max(1, min(draws, BLOCK // rows))
    for start in range(0, draws, per_block):
        size = min(per_block, draws - start)
        picks = rng.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        yield np.bincount(picks.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float32)


def weighted_scores(
    predicted: Classes, truth: Classes, classes: int, counts: SmallFloatArray
) -> dict[str, SmallFloatArray]:
    """Accuracy and macro F1 of several trials on several weightings of the test rows, as in ``harness.metrics``.

    The confusion counts of all of them are one matrix product. They are whole numbers, exact in float32 below 2**24.

    Args:
        predicted: class indices [trials, n], -1 for no prediction.
        truth: class indices [n].
        classes: number of classes.
        counts: how often each row counts [draws, n].

    Returns:
        Column of results -> scores [trials, draws].
    """
    names = np.arange(classes)
    chosen = predicted[:, :, None] == names  # [trials, n, classes]
    hits = chosen & (truth[:, None] == names)
    indicators = np.concatenate([hits, chosen], axis=2).transpose(1, 0, 2).reshape(len(truth), -1)
    products = (counts @ indicators.astype(np.float32)).reshape(len(counts), len(predicted), 2, classes)
    true_positives, positives = products[:, :, 0], products[:, :, 1]
    support = counts @ (truth[:, None] == names).astype(np.float32)
    totals = positives + support[:, None, :]
    f1 = np.divide(2 * true_positives, totals, out=np.zeros_like(totals), where=totals > 0)
    accuracy = true_positives.sum(axis=2) / counts.sum(axis=1)[:, None]
    return {ACCURACY.column("test"): accuracy.T, MACRO_F1.column("test"): f1.mean(axis=2).T}


#: The scores that can be computed from predicted classes.
COLUMNS = tuple(metric.column("test") for metric in (ACCURACY, MACRO_F1))
