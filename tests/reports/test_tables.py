from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.metrics import ACCURACY, MACRO_F1, Metric
from harness.reports import formatting, grid, tables
from harness.reports.corruption_tables import corruption_scores

from .conftest import Build, edit, predict

# irony: dimp is incomplete there and sets no mark, so CE is near the best
GOLDEN = """
| source | method | real rows used | news accuracy | news macro F1 | irony accuracy | irony macro F1 |
| --- | --- | --- | ---: | ---: | ---: | ---: |
| real_small | ce | 100 % | **70.0 ± 1.0 (3)** | **60.0 ± 0.0 (3)** | **70.0 ± 1.0 (3)** | **60.0 ± 0.0 (3)** |
| generated | ce | – | 79.4 ± 1.0 (3) | **60.0 ± 0.0 (3)** | **79.4 ± 1.0 (3)** | **60.0 ± 0.0 (3)** |
| generated | imp | 100 % | **79.5 ± 1.0 (3)** | **60.0 ± 0.0 (3)** | **79.5 ± 1.0 (3)** | **60.0 ± 0.0 (3)** |
| generated | dimp | 100 % | **80.0 ± 1.0 (3)** | **60.0 ± 0.0 (3)** | 80.5 ± 0.7 (n=2 of 3; 1 failed) | \
60.0 ± 0.0 (n=2 of 3; 1 failed) |
| generated | focal | – | 81.0 ± – (n=1 of 3; 1 interrupted, 1 missing) \
| 60.0 ± – (n=1 of 3; 1 interrupted, 1 missing) | missing (0 of 3) | missing (0 of 3) |
""".strip()

MEANS = {("real_small", "ce"): 0.7, "ce": 0.794, "imp": 0.795, "dimp": 0.8, "focal": 0.82}


def test_the_accuracy_table_is_the_golden_one(build: Build) -> None:
    results = build(benchmarks=("news", "irony"), methods=("ce", "imp", "dimp", "focal"))
    trials = results.trials
    for i, row in trials.iterrows():
        mean = MEANS.get((row["source"], row["method"]), MEANS[row["method"]])
        trials.loc[i, "test_accuracy"] = mean + (row["seed"] - 1) / 100
        trials.loc[i, "test_f1"] = 0.6
    focal, dimp = trials["method"] == "focal", trials["method"] == "dimp"
    news, irony = trials["benchmark"] == "news", trials["benchmark"] == "irony"
    results = edit(results, dimp & irony & (trials["seed"] == 0), status="failed")
    results = edit(results, focal & irony, status="missing")
    results = edit(results, focal & news & (trials["seed"] == 1), status="interrupted")
    results = edit(results, focal & news & (trials["seed"] == 2), status="missing")
    assert tables.accuracy(results).markdown() == GOLDEN


def test_a_cell_that_was_not_planned_is_marked(build: Build) -> None:
    results = build(benchmarks=("news", "irony"), methods=("ce", "dimp"))
    kept = ~((results.trials["benchmark"] == "irony") & (results.trials["method"] == "dimp"))
    frame = tables.accuracy(tables.Results(results.trials[kept], results.epochs, results.weights, results.meta)).frame()
    assert frame.loc[frame["method"] == "dimp", "irony accuracy"].tolist() == ["not planned"]


def test_variants_and_fractions_get_their_columns_only_when_there_are_some(build: Build) -> None:
    plain = tables.accuracy(build(methods=("ce",), sources=("generated",), seeds=(0,)))
    assert plain.columns[:2] == ("source", "method")
    assert plain.words == 2
    swept = tables.accuracy(build(variants=("lr=1", "lr=2"), fractions=(0.1, 1.0), seeds=(0,)))
    assert swept.columns[:4] == ("variant", "source", "method", "real rows used")
    assert [row[3].text for row in swept.rows if row[0].text == "lr=2" and row[2].text == "dimp"] == ["10 %", "100 %"]


def test_gains_worked_by_hand(build: Build) -> None:
    results = build(methods=("ce", "dimp"), sources=("generated",))
    trials = results.trials
    trials["test_accuracy"] = np.where(trials["method"] == "dimp", 0.8 + trials["seed"] / 100, 0.79)
    (row,) = tables.gains(results, ACCURACY).frame().to_dict("records")
    assert row["pairs"] == "3"
    assert row["mean gain"] == "+2.00"
    assert row["95 % (t)"] == "−0.48 to +4.48"
    assert row["95 % (seeds and rows)"] == "−0.48 to +4.48 (seeds alone)"
    assert "Seeds alone: the ledger has no predictions" in tables.gains(results, ACCURACY).note
    assert row["better"] == "3/3"
    assert row["p (Holm)"] == "0.074"


@pytest.mark.parametrize("metric", [ACCURACY, MACRO_F1])
def test_gains_with_predictions_have_an_interval_over_rows(metric: Metric, build: Build) -> None:
    results = predict(build(methods=("ce", "dimp"), sources=("generated",)))
    table = tables.gains(results, metric)
    (pair,) = grid.differences(grid.requested(results.trials), metric.column("test"), results.resampled).values()
    assert pair.rows_known
    assert pair.hierarchical != pair.interval
    assert table.frame()["95 % (seeds and rows)"].tolist() == [formatting.point_interval(pair.hierarchical)]
    assert "Seeds alone" not in table.note


def test_one_seed_gives_no_interval(build: Build) -> None:
    rows = tables.gains(build(seeds=(4,)), MACRO_F1).frame()
    assert set(rows["95 % (t)"]) == set(rows["p (Holm)"]) == {"–"}


def test_cost_has_every_phase_and_both_accounts(build: Build) -> None:
    results = build(methods=("ce", "dimp", "hu"))
    frame = tables.cost(results).frame()
    columns = set(frame.columns)
    assert {"load data and model s", "warm up s", "meta-gradients s"} <= columns
    assert {"stand-alone s", "marginal s", "peak MB"} <= columns
    assert "peak GPU MB" not in frame.columns
    assert frame.loc[frame["method"] == "ce", "stand-alone × CE"].tolist() == ["1.00×", "1.00×"]
    assert frame.loc[frame["method"] == "ce", "meta-gradients s"].tolist() == ["–", "–"]


def test_cost_says_how_many_trials_went_on_from_a_checkpoint(build: Build) -> None:
    results = build(methods=("ce", "dimp"))
    assert "checkpoint" not in tables.cost(results).note
    resumed = edit(results, results.trials["method"] == "dimp", resumed=2.0, seconds_checkpoint=1.0)
    table, trials = tables.cost(resumed), results.trials[results.trials["method"] == "dimp"]["trial"].nunique()
    assert f"{trials} of the trials went on from a checkpoint: seconds are summed over their parts." in table.note
    accounts = ["stand-alone s", "marginal s"]
    assert table.frame()[accounts].equals(tables.cost(results).frame()[accounts]), "checkpoints are not charged"


def test_extreme_rows_are_ordered_and_need_an_order(build: Build) -> None:
    results = build(methods=("ce", "dimp", "filter", "prior"), rows=60)
    (table,) = tables.extreme_rows(results)
    assert table.title == "news, dimp"
    frame = table.frame()
    assert frame["end"].tolist() == ["highest"] * 10 + ["lowest"] * 10
    assert frame["weight"].astype(float).is_monotonic_decreasing
    dimp = results.weights[results.weights["method"] == "dimp"]
    best = dimp.groupby("id")["weight"].mean().idxmax()
    assert frame["text"].iloc[0] == dimp.loc[dimp["id"] == best, "text"].iloc[0]


def test_weights_of_corrupted_rows_by_hand(build: Build) -> None:
    results = build(methods=("ce", "dimp", "filter"), seeds=(0, 1), rows=4)
    assert not tables.corrupted_rows(results).rows, "all rows are clean"
    corruptions = dict(zip([f"g{i:04d}" for i in range(4)], ["", "flip", "", "flip"], strict=True))
    values_by_trial = {
        ("dimp", 0): [3.0, 1.0, 4.0, 2.0],
        ("dimp", 1): [1.0, 2.0, 3.0, np.nan],
        ("filter", 0): [0, 0, 1, 0],
    }
    values_by_trial[("filter", 1)] = values_by_trial[("filter", 0)]
    weights = results.weights.assign(corruption=results.weights["id"].map(corruptions))
    for (method, seed), values in values_by_trial.items():
        weights.loc[(weights["method"] == method) & (weights["seed"] == seed), "weight"] = values
        weights.loc[(weights["method"] == method) & (weights["seed"] == seed), "mean_weight"] = [2.0, 1.0, 3.0, 1.0]
    frame = tables.corrupted_rows(tables.Results(results.trials, results.epochs, weights, results.meta)).frame()
    assert frame["method"].tolist() == ["dimp", "filter"], "CE has one weight for all rows"
    # dimp: all four pairs right, then one of two; filter: ties count half
    assert frame["AUROC, last epoch"].tolist() == ["0.750 ± 0.354", "0.750 ± 0.000"]
    assert frame["AUROC, all epochs"].tolist() == ["1.000 ± 0.000"] * 2
    assert frame["mean weight, clean"].tolist() == ["2.50"] * 2
    assert frame["mean weight, flip"].tolist() == ["1.00"] * 2


def test_few_rows_are_never_both_highest_and_lowest(build: Build) -> None:
    (table,) = tables.extreme_rows(build(methods=("ce", "dimp"), rows=7))
    assert [row[0].text for row in table.rows] == ["highest"] * 3 + ["lowest"] * 3


def test_splits_and_failures(build: Build) -> None:
    results = build()
    splits = tables.splits(results).frame()
    assert splits["rows"].tolist() == ["300", "3000", "500", "1500"]
    assert splits["labels"].iloc[0] == "negative 100, neutral 100, positive 100"
    assert not tables.failures(results).rows
    broken = edit(results, results.trials["method"] == "dimp", status="failed", error="loss is NaN\nat step 3")
    assert tables.failures(broken).frame()["error"].tolist() == ["loss is NaN at step 3"] * 3


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=40))
def test_markdown_cells_stay_in_their_row(value: str) -> None:
    table = tables.Table("t", ("a",), ((tables.Cell(value),),), 1)
    lines = table.markdown().split("\n")
    assert len(lines) == 3
    assert lines[2].replace("\\|", "").count("|") == 2
    assert "<" not in lines[2]


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0125, "+1.25"), (-0.004, "−0.40"), (-0.000001, "0.00"), (0.0, "0.00"), (float("nan"), "–")],
)
def test_points(value: float, written: str) -> None:
    assert formatting.points(value) == written


def test_many_numbers_in_a_row_are_shortened() -> None:
    assert formatting.numbers([2, 0, 1, 4, 3]) == "0, 1, 2, 3, 4"
    assert formatting.numbers([*range(1250), 2000, 2002]) == "0 to 1249, 2000, 2002"
    assert formatting.numbers([]) == "–"


def test_durations() -> None:
    assert [formatting.duration(x) for x in (42.4, 200.0, 7500.0)] == ["42 s", "3 min 20 s", "2 h 05 min"]


def test_a_method_without_a_finished_trial_has_no_cost_row(build: Build) -> None:
    results = build()
    results = edit(results, pd.Series(True, index=results.trials.index), status="missing")
    assert not tables.cost(results).rows
    assert not tables.weights(results).rows


def test_without_the_column_no_row_is_corrupted(build: Build) -> None:
    results = build(seeds=(0,))
    weights = results.weights.drop(columns="corruption")
    assert not tables.corrupted_rows(tables.Results(results.trials, results.epochs, weights, results.meta)).rows


def test_a_corruption_of_another_version_has_its_column(build: Build) -> None:
    results = build(methods=("ce", "dimp"), seeds=(0,))
    kinds = ["", "flip", "shout"] * (len(results.weights) // 3)
    weights = results.weights.assign(corruption=kinds)
    frame = tables.corrupted_rows(tables.Results(results.trials, results.epochs, weights, results.meta)).frame()
    assert list(frame.columns[-3:]) == ["mean weight, clean", "mean weight, flip", "mean weight, shout"]


def test_titles_come_from_the_table_of_metrics(build: Build) -> None:
    results = build(seeds=(0,))
    assert tables.accuracy(results).title == "Accuracy and macro F1"
    assert tables.gains(results, MACRO_F1).title == "Paired gain in macro F1"


def test_scores_and_weights_by_kind_of_row_worked_by_hand(build: Build) -> None:
    results = build(methods=("ce", "imp"), fractions=(1.0,), seeds=(0, 1), rows=4)
    weights = results.weights[results.weights["method"] == "imp"].copy()
    weights["corruption"] = weights["id"].map({"g0000": "", "g0001": "", "g0002": "swap", "g0003": "swap"})
    weights["quality"] = weights["id"].map({"g0000": 0.5, "g0001": 0.7, "g0002": 0.2, "g0003": 0.4})
    weights["quality"] += 0.1 * weights["seed"]
    weights["diversity"], weights["weight"] = 0.25, 2.0
    table = corruption_scores(replace(results, weights=weights)).frame()
    benchmark = table[table["benchmark"] == results.trials["benchmark"].iloc[0]].set_index("rows are")
    assert benchmark.loc["clean", "quality score P'"] == "0.650 ± 0.071"
    assert benchmark.loc["swap", "quality score P'"] == "0.350 ± 0.071"
    assert benchmark.loc["swap", ["rows", "n", "weight"]].tolist() == ["2", "2", "2.000 ± 0.000"]
    assert not corruption_scores(results).rows, "no row is corrupted"
