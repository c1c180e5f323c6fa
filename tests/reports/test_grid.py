from __future__ import annotations

import numpy as np
import pytest

from harness.reports import grid
from harness.reports.grid import Key

from .conftest import Build, edit, predict


def test_order_is_the_plans_with_sources_as_configured_and_fractions_rising(build: Build) -> None:
    results = build(sources=("generated", "real_small"), fractions=(1.0, 0.5), methods=("ce", "dimp"))
    assert [key[1:4] for key in grid.requested(results.trials)] == [
        ("real_small", "ce", 1.0),
        ("generated", "ce", None),
        ("generated", "dimp", 0.5),
        ("generated", "dimp", 1.0),
    ]


def test_trials_that_are_only_checkers_are_no_cells(build: Build) -> None:
    results = build(sources=("generated",), methods=("ce", "dimp"))
    assert (~results.trials["requested"]).sum() == 3
    assert {key.source for key in grid.requested(results.trials)} == {"generated"}


def test_the_baseline_shares_source_variant_and_fraction() -> None:
    key = Key("b", "generated", "imp", 0.5, "")
    none, half, full = (key._replace(method="ce", fraction=f) for f in (None, 0.5, 1.0))
    other = none._replace(source="real_large")
    assert grid.baseline_of(key, [none, full, other]) == none
    assert grid.baseline_of(key, [none, half, full]) == half
    assert grid.baseline_of(key._replace(fraction=None), [half, full]) == full
    assert grid.baseline_of(key, [other, none._replace(variant="x")]) is None


def test_seeds_are_paired_whatever_their_order(build: Build) -> None:
    results = build(methods=("ce", "dimp"), seeds=(0, 1, 2))
    shuffled = results.trials.sample(frac=1.0, random_state=3)
    first, second = grid.requested(results.trials), grid.requested(shuffled)
    ce, dimp = Key("news", "generated", "ce", None, ""), Key("news", "generated", "dimp", 1.0, "")
    assert grid.compare(first, dimp, ce, "test_accuracy") == grid.compare(second, dimp, ce, "test_accuracy")


def test_only_seeds_that_finished_in_both_are_pairs(build: Build) -> None:
    results = build(methods=("ce", "dimp"), seeds=(0, 1, 2))
    trials = results.trials
    results = edit(results, (trials["method"] == "dimp") & (trials["seed"] == 1), status="failed")
    (pair,) = grid.differences(grid.requested(results.trials), "test_accuracy").values()
    wide = trials[trials["source"] == "generated"].pivot(index="seed", columns="method", values="test_accuracy")
    assert pair.n == 2
    assert pair.mean == pytest.approx((wide["dimp"] - wide["ce"]).loc[[0, 2]].mean())


def test_resampled_rows_follow_the_pairs(build: Build) -> None:
    results = predict(build(methods=("ce", "dimp"), sources=("generated",)))
    trials = results.trials
    ce, dimp = Key("news", "generated", "ce", None, ""), Key("news", "generated", "dimp", 1.0, "")
    shuffled = grid.requested(trials[~((trials["method"] == "dimp") & (trials["seed"] == 1))].iloc[::-1])
    pairs = grid.pairs_of(shuffled, dimp, ce, "test_accuracy", results.resampled)
    assert pairs.resampled is not None
    for values, resampled in zip((pairs.first, pairs.second), pairs.resampled, strict=True):
        assert resampled.mean(axis=1) == pytest.approx(values, abs=0.01), "each row belongs to its seed"
    assert grid.pairs_of(shuffled, dimp, ce, "test_loss", results.resampled).resampled is None


def test_bold_ignores_incomplete_cells(build: Build) -> None:
    results = build(sources=("generated",))
    trials = results.trials
    results = edit(results, (trials["method"] == "dimp") & (trials["seed"] == 1), status="missing")
    assert {key.method for key in grid.bold_cells(grid.requested(results.trials), "test_accuracy")} == {"imp"}


def test_bold_compares_within_a_fraction(build: Build) -> None:
    results = build(sources=("generated",), methods=("ce", "dimp"), fractions=(0.1, 1.0))
    results = edit(results, results.trials["method"] == "ce", test_accuracy=0.1)
    bold = grid.bold_cells(grid.requested(results.trials), "test_accuracy")
    assert {key.fraction for key in bold} == {0.1, 1.0}


def test_missing_numbers_leave_no_value(build: Build) -> None:
    results = build(methods=("ce",), seeds=(0, 1))
    results.trials.loc[0, "test_accuracy"] = np.nan
    rows = grid.requested(results.trials)[Key("news", "real_small", "ce", 1.0, "")]
    assert list(grid.by_seed(rows, "test_accuracy").index) == [1]


def test_rows_without_a_recorded_corruption_are_clean(build: Build) -> None:
    weights = build(seeds=(0,)).weights
    assert set(grid.with_corruption(weights.drop(columns="corruption"))["corruption"]) == {""}
    partly = weights.assign(corruption=["flip", None, *[""] * (len(weights) - 2)])
    assert grid.with_corruption(partly)["corruption"].tolist()[:3] == ["flip", "", ""]
