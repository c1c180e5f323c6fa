"""Statistics over several benchmarks: pure functions of arrays by benchmark, with an explicit random generator.

Benchmarks are strata: they are fixed and count alike, whatever their number of seeds (Agarwal et al., Deep
reinforcement learning at the edge of the statistical precipice, NeurIPS 2021; the package rliable).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness.reports.statistics import UNDEFINED, Estimate, FloatArray, Interval

#: Up to this number of pairs, all 2**n sign flips are enumerated.
EXACT_PAIRS = 14
#: Random sign flips beyond it.
FLIPS = 20_000


class SignFlipTest(NamedTuple):
    """Two-sided p of the permutation test, and the smallest p that it could give with these pairs."""

    p: float
    smallest: float


class Improvement(NamedTuple):
    """Probability that a trial of the method beats one of the baseline, and its 95 % percentile interval."""

    probability: float
    interval: Interval


def pool(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over benchmarks. Variances add up; degrees of freedom of the seeds by Satterthwaite."""
    count = len(estimates)
    if not count:
        return Estimate(float("nan"), float("nan"), 0.0, 0.0)
    seed_variance = sum(e.seed_variance for e in estimates) / count**2
    row_variance = sum(e.row_variance for e in estimates) / count**2
    terms = [(e.seed_variance / count**2) ** 2 / e.seed_df for e in estimates if e.seed_variance > 0]
    seed_df = seed_variance**2 / sum(terms) if terms else float("nan")
    return Estimate(float(np.mean([e.mean for e in estimates])), seed_variance, row_variance, seed_df)


def sign_flip_test(differences: Sequence[FloatArray], rng: np.random.Generator) -> SignFlipTest:
    """Paired permutation test of the mean over benchmarks of the mean difference.

    Without an effect, a method and its baseline could be swapped on every seed: the sign of each difference is
    random. The test is exact for the seeds, on these test rows. n pairs with a difference give no p below 2 / 2**n:
    0.25 for three pairs, 0.0039 for nine.

    Args:
        differences: by benchmark, one a seed.
        rng: draws the flips where there are too many to enumerate.
    """
    terms = np.concatenate([values / (len(values) * len(differences)) for values in differences])
    terms = terms[terms != 0]
    n = len(terms)
    if not n:
        return SignFlipTest(1.0, 1.0)
    observed = abs(terms.sum()) - 1e-12 * np.abs(terms).sum()  # sums in another order are equal
    if n <= EXACT_PAIRS:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return SignFlipTest(float((np.abs(signs @ terms) >= observed).mean()), 2.0 / 2**n)
    signs = 1.0 - 2.0 * rng.integers(2, size=(FLIPS, n), dtype=np.int8)
    extreme = int((np.abs(signs @ terms) >= observed).sum())
    return SignFlipTest((extreme + 1) / (FLIPS + 1), max(1 / (FLIPS + 1), 2.0 / 2**n))


def average_ranks(means: FloatArray) -> FloatArray:
    """The rank of each method, averaged over benchmarks.

    Args:
        means: [methods, benchmarks]; the highest has rank 1, equal ones share the mean of their ranks.
    """
    from scipy import stats  # slow to import

    ranks: FloatArray = stats.rankdata(-means.round(12), axis=0).mean(axis=1)
    return ranks


def improvement(
    method: Sequence[FloatArray], baseline: Sequence[FloatArray], rng: np.random.Generator,
    resampled: Sequence[tuple[FloatArray, FloatArray] | None] | None = None, draws: int = 1000,
) -> Improvement:  # fmt: skip
    """The probability of improvement: the share of pairs of trials in which the method is better, ties half.

    All pairs within a benchmark count, whatever their seeds; the mean is over benchmarks. The interval is that of a
    stratified bootstrap: seeds are resampled within each benchmark, the same for both methods, and test rows too
    where ``resampled`` is known. With three seeds it is too narrow.

    Args:
        method: by benchmark, one value a seed.
        baseline: the same seeds of the baseline.
        rng: draws the seeds.
        resampled: by benchmark, the values of method and baseline on resampled test rows [seeds, draws].
        draws: number of resamples.
    """
    probability = float(np.mean([better(*pair).mean() for pair in zip(method, baseline, strict=True)]))
    if min(len(values) for values in method) < 2:
        return Improvement(probability, UNDEFINED)
    total = np.zeros(draws)
    for i, pair in enumerate(zip(method, baseline, strict=True)):
        seeds = len(pair[0])
        picks = rng.integers(seeds, size=(seeds, draws))
        rows = resampled[i] if resampled is not None else None
        tables = rows if rows is not None else [np.broadcast_to(v[:, None], (seeds, draws)) for v in pair]
        total += better(*(np.take_along_axis(table, picks, axis=0) for table in tables)).mean(axis=(0, 1))
    low, high = np.quantile(total / len(method), [0.025, 0.975])
    return Improvement(probability, (float(low), float(high)))


def better(method: FloatArray, baseline: FloatArray) -> FloatArray:
    """1 where a value of ``method`` is greater, 0.5 where it is equal [n, m, ...], of arrays [n, ...] and [m, ...]."""
    gaps = method[:, None] - baseline[None, :]
    return (np.sign(gaps) + 1) / 2
