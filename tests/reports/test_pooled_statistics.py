from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.reports.pooled_statistics import average_ranks, better, improvement, pool, sign_flip_test
from harness.reports.statistics import Estimate, estimate


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_pooled_estimate_worked_by_hand() -> None:
    gain = pool([Estimate(1.0, 4.0, 2.0, 2.0), Estimate(3.0, 4.0, 6.0, 2.0)])
    assert (gain.mean, gain.seed_variance, gain.row_variance) == (2.0, 2.0, 2.0)
    assert gain.seed_df == pytest.approx(4.0)  # equal variances add up
    assert gain.df == pytest.approx(16.0)
    assert gain.interval[1] == pytest.approx(2.0 + 2.119905 * 2.0, abs=1e-5)


def test_one_benchmark_pools_to_itself() -> None:
    single = estimate(np.array([1.0, 2.0, 4.0]), rng(1).normal(size=(3, 50)))
    pooled = pool([single])
    assert (*pooled.interval, pooled.df) == pytest.approx((*single.interval, single.df))


def test_a_benchmark_with_one_seed_leaves_no_interval() -> None:
    gain = pool([estimate(np.array([1.0])), estimate(np.array([1.0, 2.0]))])
    assert gain.mean == 1.25
    assert math.isnan(gain.interval[0])
    assert math.isnan(pool([]).mean)


def test_sign_flips_worked_by_hand() -> None:
    # of the 8 sums of ±1 ±2 ±3, only 6 and -6 are as far from 0
    assert sign_flip_test([np.array([1.0, 2.0, 3.0])], rng()) == (0.25, 0.25)
    # 2 - 1 + 3 = 4: also ±(6), ±(4); 1 + 2 - 3 and others are nearer
    assert sign_flip_test([np.array([-1.0, 2.0, 3.0])], rng()) == (0.5, 0.25)
    assert sign_flip_test([np.zeros(3)], rng()) == (1.0, 1.0)
    assert sign_flip_test([np.array([0.0, 1.0]), np.array([2.0])], rng()).smallest == 0.5  # a tie cannot flip


@pytest.mark.parametrize("n", [4, 9])
def test_sign_flips_agree_with_scipy(n: int) -> None:
    first, second = rng(n).normal(0.5, 1.0, n), np.zeros(n)
    reference = stats.permutation_test(
        (first, second), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples", vectorized=True
    )
    assert sign_flip_test([first - second], rng()).p == pytest.approx(reference.pvalue)


def test_random_flips_agree_with_all_flips(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [rng(1).normal(0.4, 1.0, 6), rng(2).normal(0.4, 1.0, 5)]
    exact = sign_flip_test(groups, rng())
    monkeypatch.setattr("harness.reports.pooled_statistics.EXACT_PAIRS", 3)
    assert sign_flip_test(groups, rng()).p == pytest.approx(exact.p, abs=0.01)
    assert sign_flip_test(groups, rng()) == sign_flip_test(groups, rng())


def test_benchmarks_count_alike_in_the_sign_flips() -> None:
    # the means are 3 and -1 with weights 1/2: (3 - 1) / 2 = 1 is reached by every flip but none of the two zeros
    assert sign_flip_test([np.array([3.0]), np.array([-1.0, -1.0])], rng()).p == 1.0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8), st.floats(0.1, 10))
def test_sign_flips_ignore_direction_and_unit(values: list[float], factor: float) -> None:
    differences = np.array(values).round(3)
    test = sign_flip_test([differences], rng())
    assert test.smallest <= test.p <= 1.0
    assert sign_flip_test([-factor * differences], rng()).p == test.p


def test_average_ranks_worked_by_hand() -> None:
    means = np.array([[0.9, 0.5], [0.8, 0.7], [0.9, 0.6]])
    assert average_ranks(means).tolist() == [(1.5 + 3) / 2, (3 + 1) / 2, (1.5 + 2) / 2]


def test_improvement_worked_by_hand() -> None:
    method, baseline = [np.array([2.0, 1.0]), np.array([5.0])], [np.array([1.0, 0.0]), np.array([4.0])]
    # first benchmark: 2 > 1, 2 > 0, 1 = 1, 1 > 0
    assert improvement(method, baseline, rng()).probability == (3.5 / 4 + 1) / 2
    assert math.isnan(improvement(method, baseline, rng()).interval[0]), "one seed cannot be resampled"


def test_improvement_agrees_with_the_rank_sum_test() -> None:
    method, baseline = rng(1).normal(1, 1, 7), rng(2).normal(0, 1, 7)
    reference = stats.mannwhitneyu(method, baseline).statistic / 49
    assert improvement([method], [baseline], rng()).probability == pytest.approx(reference)
    assert better(method, baseline).shape == (7, 7)


def test_the_interval_of_improvement_resamples_seeds_and_rows() -> None:
    method, baseline = np.array([0.8, 0.8, 0.8]), np.array([0.7, 0.7, 0.7])
    assert improvement([method], [baseline], rng()).interval == (1.0, 1.0)
    rows = rng(1).normal(0.8, 0.1, (3, 200)), rng(2).normal(0.7, 0.1, (3, 200))
    low, high = improvement([method], [baseline], rng(), [rows], draws=200).interval
    assert low < 0.5 < high <= 1.0
