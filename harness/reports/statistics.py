"""Statistics of repeated trials: pure functions of arrays, with an explicit random generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Interval = tuple[float, float]

UNDEFINED: Interval = (float("nan"), float("nan"))
#: Means within 0.5 points of the best are set in bold, as in the paper.
BOLD_MARGIN = 0.005


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation (n - 1 in the denominator; NaN for n < 2) and number of values."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class Paired:
    """A method against a baseline on the same seeds. Differences are method minus baseline.

    Attributes:
        n: pairs.
        mean: mean difference; NaN without pairs.
        interval: 95 % interval of Student's t; undefined (NaN) for n < 2 or differences without spread.
        bootstrap: 95 % percentile interval over resampled pairs; undefined where ``interval`` is.
        wins: pairs in which the method is better.
        ties: pairs in which both are equal.
        p: two-sided paired t test; NaN where ``interval`` is undefined.
        detectable: the true difference that would be detected with 80 % power, given n and the observed spread.
    """

    n: int
    mean: float
    interval: Interval
    bootstrap: Interval
    wins: int
    ties: int
    p: float
    detectable: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the t interval is defined and does not contain zero."""
        low, high = self.interval
        return low > 0.0 or high < 0.0


def summarize(values: npt.ArrayLike) -> Summary:
    """The summary of ``values``; without any, the mean is NaN."""
    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    mean = float(array.mean()) if n else float("nan")
    return Summary(mean, float(array.std(ddof=1)) if n > 1 else float("nan"), n)


def near_best(means: Sequence[float], margin: float = BOLD_MARGIN) -> list[bool]:
    """Whether each mean is at most ``margin`` below the largest one. NaN is never near and never the best."""
    known = [mean for mean in means if not np.isnan(mean)]
    best = max(known, default=float("nan"))
    return [bool(mean >= best - margin - 1e-12) for mean in means]


def paired(method: FloatArray, baseline: FloatArray, rng: np.random.Generator) -> Paired:
    """Compare two arrays of the same length, one value a seed, in the same order of seeds."""
    from scipy import stats  # slow to import

    differences = np.asarray(method, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    n = len(differences)
    wins, ties = int((differences > 0).sum()), int((differences == 0).sum())
    mean = float(differences.mean()) if n else float("nan")
    # equal differences can differ in the last bit: that is no spread
    if n < 2 or np.ptp(differences) < 1e-12:
        return Paired(n, mean, UNDEFINED, UNDEFINED, wins, ties, float("nan"), float("nan"))
    error = float(differences.std(ddof=1)) / np.sqrt(n)
    half = float(stats.t.ppf(0.975, n - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    detectable = half + float(stats.t.ppf(0.8, n - 1)) * error
    return Paired(n, mean, (mean - half, mean + half), bootstrap_interval(differences, rng), wins, ties, p, detectable)


def bootstrap_interval(values: FloatArray, rng: np.random.Generator, resamples: int = 10_000) -> Interval:
    """95 % percentile interval of the mean of ``values`` under resampling with replacement."""
    means = rng.choice(values, size=(resamples, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction. NaN stays NaN and does not count as a comparison."""
    adjusted = [float("nan")] * len(p_values)
    order = sorted((p, i) for i, p in enumerate(p_values) if not np.isnan(p))
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[i] = largest
    return adjusted
