from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.reports.statistics import bootstrap_interval, holm, near_best, paired, summarize


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
    pair = paired(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]), rng())  # differences 1, 2, 3
    half = 4.302653 / math.sqrt(3)  # t(0.975; 2) times sd 1 over root n
    assert pair.mean == pytest.approx(2.0)
    assert pair.interval == pytest.approx((2.0 - half, 2.0 + half), abs=1e-5)
    assert (pair.n, pair.wins, pair.ties) == (3, 3, 0)
    assert not pair.excludes_zero


def test_paired_agrees_with_scipy() -> None:
    first, second = rng(1).normal(0.8, 0.02, 8), rng(2).normal(0.78, 0.02, 8)
    pair = paired(first, second, rng())
    reference = stats.ttest_rel(first, second)
    assert pair.p == pytest.approx(reference.pvalue)
    assert pair.interval == pytest.approx(tuple(reference.confidence_interval(0.95)))


@pytest.mark.parametrize("first", [[], [0.5], [0.5, 0.6], [0.4, 0.5]])
def test_without_pairs_or_spread_the_interval_is_undefined(first: list[float]) -> None:
    pair = paired(np.array(first), np.array([0.4, 0.5][: len(first)]), rng())
    assert all(map(math.isnan, (*pair.interval, *pair.bootstrap, pair.p, pair.detectable)))
    assert not pair.excludes_zero


def test_ties_are_no_wins() -> None:
    pair = paired(np.array([0.5, 0.7, 0.6]), np.array([0.5, 0.6, 0.7]), rng())
    assert (pair.wins, pair.ties) == (1, 1)


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    differences = rng(3).normal(0.0, 1.0, 10)
    pair = paired(differences, np.zeros(10), rng())
    shift = pair.detectable / (differences.std(ddof=1) / math.sqrt(10))
    power = stats.nct.sf(stats.t.ppf(0.975, 9), 9, shift)
    assert power == pytest.approx(0.8, abs=0.03)


def test_bootstrap_depends_on_the_generator_only() -> None:
    values = np.array([0.01, 0.03, 0.02, 0.05])
    assert bootstrap_interval(values, rng(5)) == bootstrap_interval(values, rng(5))
    reference = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=50_000, rng=rng(1))
    assert bootstrap_interval(values, rng(5)) == pytest.approx(tuple(reference.confidence_interval), abs=1e-3)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.integers(0, 100))
def test_bootstrap_stays_within_the_values(values: list[float], seed: int) -> None:
    low, high = bootstrap_interval(np.array(values), rng(seed), resamples=200)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12


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
