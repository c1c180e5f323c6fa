"""What written rows are worth: how many human rows they replace. Pure functions of arrays.

The horizontal distance between two learning curves, accuracy against human rows: with the written rows, and without
(Le Scao & Rush, NAACL 2021, call it the data advantage). It can be negative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.weigh.decision import CONFIDENCE

FloatArray = npt.NDArray[np.float64]
DRAWS = 2000
#: An interval wider than this many times the human rows says nothing.
WIDEST = 4.0
#: Rows that are as good as infinitely many, as a multiple of those at hand.
MOST = 100.0


@dataclass(frozen=True)
class Estimate:
    """A value and its interval; infinite where a curve does not reach an accuracy."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Worth:
    """What the written rows are worth beside some human rows.

    Attributes:
        people: number of human rows that were trained on.
        rows: how many further human rows the written rows replaced.
        extrapolated: True if a straight line continues the measured curve.
        clear: False if the data cannot tell.
    """

    people: float
    rows: Estimate
    extrapolated: bool
    clear: bool


@dataclass(frozen=True)
class Curves:
    """Learning curves on the same rows.

    Attributes:
        people: numbers of human rows that were trained on, ascending [k].
        alone: accuracy without written rows: for each fold, 1 or 0 for each size and row, averaged over seeds [k, n_j].
        both: accuracy with written rows, likewise.
        test_share: n_test / n_train of a fold.
    """

    people: FloatArray
    alone: Sequence[FloatArray]
    both: Sequence[FloatArray]
    test_share: float

    def means(self) -> tuple[FloatArray, FloatArray]:
        """Accuracy without and with written rows [k], [k]."""
        return np.concatenate(list(self.alone), axis=1).mean(axis=1), np.concatenate(list(self.both), axis=1).mean(
            axis=1
        )

    def draws(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Accuracies on resampled rows [DRAWS, k], [DRAWS, k].

        Rows are resampled within folds, the same for both curves and all sizes. Deviations from the mean are widened
        for overlapping training rows, as in ``harness.weigh.decision.corrected_gain``.
        """
        alone, both = self.means()
        total = sum(part.shape[1] for part in self.alone)
        sums = [np.zeros((DRAWS, len(self.people))) for _ in range(2)]
        for parts in zip(self.alone, self.both, strict=True):
            size = parts[0].shape[1]
            counts = rng.multinomial(size, np.full(size, 1 / size), size=DRAWS).astype(np.float64)
            for sum_, part in zip(sums, parts, strict=True):
                sum_ += counts @ part.T
        wider = np.sqrt(1 + len(self.alone) * self.test_share)
        return tuple(mean + wider * (sum_ / total - mean) for mean, sum_ in zip((alone, both), sums, strict=True))


def slopes(people: FloatArray, accuracy: FloatArray) -> FloatArray:
    """The slope of accuracy against the logarithm of the rows, by least squares.

    Args:
        people: numbers of rows [k].
        accuracy: [..., k].
    """
    x = np.log(people)
    centered = x - x.mean()
    return np.asarray((accuracy * centered).sum(axis=-1) / (centered**2).sum())


def rows_for(people: FloatArray, curve: FloatArray, accuracy: FloatArray) -> FloatArray:
    """With how many human rows a learning curve reaches an accuracy.

    Between the measured sizes the curve is made monotone (isotonic regression) and linear in the logarithm of the rows;
    outside it goes on with the slope of the straight line through all sizes. Where that line does not rise, a higher
    accuracy needs infinitely many rows, a lower one none.

    Args:
        people: numbers of human rows, ascending [k].
        curve: accuracies [draws, k].
        accuracy: to reach [draws].

    Returns:
        Numbers of rows [draws].
    """
    x = np.log(people)
    slope = slopes(people, curve)
    rising = np.stack([_isotonic(row) for row in curve])
    out = np.empty(len(curve))
    for i, (row, target) in enumerate(zip(rising, accuracy, strict=True)):
        end = 0 if target < row[0] else -1
        if (row == target).any():
            out[i] = x[row == target].mean()  # the middle of a level stretch
        elif row[0] < target < row[-1]:
            out[i] = np.interp(target, row, x)
        else:
            out[i] = x[end] + (target - row[end]) / slope[i] if slope[i] > 1e-9 else np.sign(target - row[end]) * np.inf
    return np.asarray(np.exp(np.clip(out, -np.inf, np.log(MOST * people[-1]))))


def _isotonic(values: FloatArray) -> FloatArray:
    from scipy.optimize import isotonic_regression

    return np.asarray(isotonic_regression(values).x)


def worth(curves: Curves, rng: np.random.Generator) -> list[Worth]:
    """The worth of the written rows beside every number of human rows.

    Within the measured sizes the curve without written rows is read off; beyond them (where written rows are worth more
    than that, or harm below the smallest size) a straight line continues it. The data cannot tell where the interval is
    wider than ``WIDEST`` times the human rows, or where the curve without written rows does not surely rise.
    """
    alone, both = curves.means()
    alone_draws, both_draws = curves.draws(rng)
    tails = (50 - 50 * CONFIDENCE, 50 + 50 * CONFIDENCE)
    rises = np.percentile(slopes(curves.people, alone_draws), tails[0]) > 1e-9  # else no distance can be read off
    out = []
    for k, people in enumerate(curves.people.tolist()):
        value = float(rows_for(curves.people, alone[None], both[k : k + 1])[0])
        drawn = rows_for(curves.people, alone_draws, both_draws[:, k]) - people
        low, high = (float(end) for end in np.percentile(drawn, tails))
        clear = high - low <= WIDEST * max(people, curves.people[-1] / 2) and high < (MOST - 1) * curves.people[-1] / 2
        extrapolated = not curves.people[0] <= value <= curves.people[-1]
        out.append(Worth(people, Estimate(value - people, low, high), extrapolated, bool(clear and rises)))
    return out


def next_rows(curves: Curves, written: bool, people: int, more: int, rng: np.random.Generator) -> Estimate:
    """The accuracy that ``more`` human rows are expected to add, by the straight line in the logarithm of the rows.

    Args:
        curves: the learning curves.
        written: whether written rows are trained on as well.
        people: number of human rows so far.
        more: number of further rows.
        rng: for resampling.
    """
    slope = slopes(curves.people, curves.means()[written])
    drawn = slopes(curves.people, curves.draws(rng)[written])
    factor = float(np.log1p(more / people))
    low, high = np.percentile(factor * drawn, (50 - 50 * CONFIDENCE, 50 + 50 * CONFIDENCE))
    return Estimate(factor * float(slope), float(low), float(high))


def accuracy_with_interval(correct: Mapping[int, FloatArray], test_share: float) -> Estimate:
    """Mean accuracy over folds and its interval, corrected for overlapping training rows."""
    from harness.weigh.decision import corrected_gain

    gain = corrected_gain(list(correct.values()), test_share)
    low, high = gain.interval
    return Estimate(gain.mean, max(0.0, low), min(1.0, high))
