from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.reports.statistics import estimate, holm, near_best, paired, summarize


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_summary_worked_by_hand() -> None:
    summary = summarize([0.7, 0.8, 0.9])
    assert summary.mean == pytest.approx(0.8)
    assert summary.sd == pytest.approx(0.1)  # divided by n - 1
    assert summary.n == 3


def test_summary_of_one_value_has_no_spread_and_of_none_no_mean() -> None:
    assert summarize([0.7]).mean == 0.7
    assert math.isnan(summarize([0.7]).sd)
    assert math.isnan(summarize([]).mean)
    assert summarize([]).n == 0


def test_paired_worked_by_hand() -> None:
    pair = paired(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))  # differences 1, 2, 3
    half = 4.302653 / math.sqrt(3)  # t(0.975; 2) times sd 1 over root n
    assert pair.mean == pytest.approx(2.0)
    assert pair.interval == pytest.approx((2.0 - half, 2.0 + half), abs=1e-5)
    assert (pair.n, pair.wins, pair.ties) == (3, 3, 0)
    assert not pair.excludes_zero


def test_paired_agrees_with_scipy() -> None:
    first, second = rng(1).normal(0.8, 0.02, 8), rng(2).normal(0.78, 0.02, 8)
    pair = paired(first, second)
    reference = stats.ttest_rel(first, second)
    assert pair.p == pytest.approx(reference.pvalue)
    assert pair.interval == pytest.approx(tuple(reference.confidence_interval(0.95)))


@pytest.mark.parametrize("first", [[], [0.5], [0.5, 0.6], [0.4, 0.5]])
def test_without_pairs_or_spread_the_interval_is_undefined(first: list[float]) -> None:
    pair = paired(np.array(first), np.array([0.4, 0.5][: len(first)]))
    assert all(map(math.isnan, (*pair.interval, *pair.hierarchical, pair.p, pair.detectable)))
    assert not pair.excludes_zero


def test_ties_are_no_wins() -> None:
    pair = paired(np.array([0.5, 0.7, 0.6]), np.array([0.5, 0.6, 0.7]))
    assert (pair.wins, pair.ties) == (1, 1)


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    differences = rng(3).normal(0.0, 1.0, 10)
    pair = paired(differences, np.zeros(10))
    shift = pair.detectable / (differences.std(ddof=1) / math.sqrt(10))
    power = stats.nct.sf(stats.t.ppf(0.975, 9), 9, shift)
    assert power == pytest.approx(0.8, abs=0.03)


def test_estimate_over_seeds_and_rows_worked_by_hand() -> None:
    # the resamples of both seeds have variance 4 and covariance 2
    resampled = np.array([[2.0, -2.0, 0.0, 2.0, -2.0], [2.0, -2.0, 0.0, 0.0, 0.0]])
    assert np.cov(resampled)[0] == pytest.approx([4.0, 2.0])
    both = estimate(np.array([1.0, 3.0]), resampled)
    assert (both.mean, both.seed_variance, both.row_variance) == pytest.approx((2.0, 1.0, 2.0))
    assert both.error == pytest.approx(math.sqrt(3.0))
    assert both.df == pytest.approx(9.0)  # (1 + 2)**2 / (1**2 / 1)
    half = 2.262157 * math.sqrt(3.0)
    assert both.interval == pytest.approx((2.0 - half, 2.0 + half), abs=1e-5)


def test_rows_that_seeds_do_not_share_add_nothing() -> None:
    differences = np.array([1.0, 3.0])
    opposite = estimate(differences, np.array([[1.0, -1.0], [-1.0, 1.0]]))
    assert opposite == estimate(differences)


def test_equal_differences_have_an_interval_if_the_rows_are_known() -> None:
    pair = paired(np.array([0.6, 0.6]), np.array([0.5, 0.5]), np.array([[0.0, 0.1, 0.2], [0.0, 0.1, 0.2]]))
    assert math.isnan(pair.interval[0])
    assert pair.hierarchical == pytest.approx((0.1 - 1.959964 * 0.1, 0.1 + 1.959964 * 0.1))


def test_without_rows_the_hierarchical_interval_is_that_of_the_seeds() -> None:
    pair = paired(np.array([0.5, 0.7, 0.6]), np.array([0.5, 0.6, 0.4]))
    assert pair.hierarchical == pair.interval
    assert not pair.rows_known


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_rows_only_add_variance(seeds: int, seed: int) -> None:
    differences, resampled = rng(seed).normal(size=seeds), rng(seed + 1).normal(size=(seeds, 20))
    alone, both = estimate(differences), estimate(differences, resampled)
    assert both.error >= alone.error
    assert both.df >= alone.df == seeds - 1


def test_holm_worked_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_does_not_count_what_is_undefined() -> None:
    adjusted = holm([float("nan"), 0.02, 0.5])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.5])


@given(st.lists(st.floats(0, 1), max_size=10))
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1.0 for p, q in zip(p_values, adjusted, strict=True))
    assert [q for _, q in sorted(zip(p_values, adjusted, strict=True))] == sorted(adjusted)


def test_bold_is_half_a_point_from_the_best() -> None:
    assert near_best([0.820, 0.8251, 0.8199, float("nan")]) == [False, True, False, False]
    assert near_best([0.820, 0.825]) == [True, True]
    assert near_best([float("nan")]) == [False]
    assert near_best([]) == []
