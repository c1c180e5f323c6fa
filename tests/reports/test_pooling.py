from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.reports import pooled_tables
from harness.reports.pooling import epoch_choices, pooled
from harness.reports.results import Results

from .conftest import Build, edit, predict

#: Accuracies by benchmark and method, of seeds 0, 1, 2.
VALUES = {
    ("news", "ce"): [0.70, 0.71, 0.72],
    ("news", "dimp"): [0.72, 0.74, 0.73],
    ("news", "focal"): [0.70, 0.70, 0.70],
    ("irony", "ce"): [0.60, 0.60, 0.63],
    ("irony", "dimp"): [0.63, 0.64, 0.68],
    ("irony", "focal"): [0.59, 0.62, 0.62],
}

# dimp: differences 2 3 1 and 3 4 5, so mean 3, variance (1/3 + 1/3) / 4, 4 degrees of freedom: 3 ± 2.776 × 0.408;
# all six are positive: p = 2/64, times 2. Better than CE in 8.5 of 9 pairs of trials on either benchmark.
# focal: differences 0 -1 -2 and -1 2 -1, so mean -0.5, variance (1/3 + 1) / 4, 3.2 degrees of freedom; with signs,
# 1 + 1 + 1 + 2 + 2 is 3 or more in 18 of 32 ways. Better than CE in 1.5 and 4 of 9 pairs. It shares rank 2 on irony.
GOLDEN = """
| source | method | real rows used | benchmarks | mean accuracy | average rank | pairs | mean gain | \
95 % (seeds and rows) | P(better than CE) | 95 % (bootstrap) | p (Holm) | smallest p | detectable |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| generated | ce | – | 2 | 66.0 | 2.25 | – | – | – | – | – | – | – | – |
| generated | dimp | 100 % | 2 | 69.0 | 1.00 | 6 | +3.00 | +1.87 to +4.13 (seeds alone) | 0.94 | 0.89 to 1.00 | 0.062 \
| 0.0312 | 1.52 |
| generated | focal | – | 2 | 65.5 | 2.75 | 6 | −0.50 | −2.27 to +1.27 (seeds alone) | 0.31 | 0.08 to 0.58 | 0.562 \
| 0.0625 | 2.33 |
""".strip()


def worked_example(build: Build) -> Results:
    results = build(benchmarks=("news", "irony"), methods=("ce", "dimp", "focal"), sources=("generated",))
    for i, trial in results.trials[results.trials["requested"]].iterrows():
        results.trials.loc[i, "test_accuracy"] = VALUES[trial["benchmark"], trial["method"]][trial["seed"]]
    return results


def test_the_pooled_table_is_the_golden_one(build: Build) -> None:
    table = pooled_tables.pooled_gains(worked_example(build))
    assert table.markdown() == GOLDEN
    assert "Seeds alone: the ledger has no predictions" in table.note


def test_one_benchmark_or_one_method_is_not_pooled(build: Build) -> None:
    assert pooled(build()) == []
    assert pooled(build(benchmarks=("news", "irony"), methods=("ce",))) == []
    assert not pooled_tables.pooled_gains(build()).rows


def test_a_method_that_is_incomplete_on_a_benchmark_is_left_out(build: Build) -> None:
    results = worked_example(build)
    trials = results.trials
    lost = (trials["method"] == "focal") & (trials["benchmark"] == "irony") & (trials["seed"] == 1)
    assert [row.key.method for row in pooled(edit(results, lost, status="failed"))] == ["ce", "dimp"]
    lost = (trials["method"] == "ce") & (trials["benchmark"] == "irony")
    assert pooled(edit(results, lost, status="failed")) == [], "CE is complete on one benchmark alone"


def test_with_predictions_the_rows_count(build: Build) -> None:
    results = predict(build(benchmarks=("news", "irony"), methods=("ce", "dimp"), sources=("generated",)))
    _, row = pooled(results)
    assert row.rows_known
    assert row.gain.row_variance > 0
    del results.predictions["irony"]
    _, row = pooled(Results(results.trials, results.epochs, results.weights, {}, predictions=results.predictions))
    assert not row.rows_known


def test_sources_and_variants_are_pooled_apart_and_corrected_together(build: Build) -> None:
    results = build(
        benchmarks=("news", "irony"), methods=("ce", "dimp"), variants=("a", "b"), fractions=(0.5, 1.0),
        sources=("real_small", "generated", "real_large"),
    )  # fmt: skip
    rows = pooled(results)
    assert [(row.key.variant, row.key.source, row.key.method) for row in rows] == [
        (variant, source, method) for variant in ("a", "b") for source in ("generated", "real_large")
        for method in ("ce", "dimp")
    ]  # fmt: skip
    assert {row.key.fraction for row in rows if row.key.method == "dimp"} == {1.0}
    assert rows[1].p == pytest.approx(4 * 2 / 2**6)


def test_the_choice_of_epoch_worked_by_hand(build: Build) -> None:
    results = build(benchmarks=("news", "irony"), methods=("ce",), sources=("generated",), seeds=(0, 1), epochs=3)
    epochs = results.epochs.sort_values(["benchmark", "seed", "epoch"], ascending=[False, True, True])
    epochs = epochs.assign(
        validation_accuracy=[0.5, 0.6, 0.6, 0.5, 0.4, 0.6, 0.7, 0.1, 0.1, 0.1, 0.7, 0.1],
        test_accuracy=[0.1, 0.8, 0.7, 0.1, 0.1, 0.5, 0.6, 0.1, 0.4, 0.1, 0.5, 0.3],
    ).sample(frac=1.0, random_state=0)
    results = Results(results.trials, epochs, results.weights, results.meta)
    (choice,) = epoch_choices(results)
    # news: 0.7 and 0.5 become 0.8 (the first of equals) and 0.5; irony: 0.4 and 0.3 become 0.6 and 0.5
    assert choice.n == 4
    assert (choice.last, choice.best) == pytest.approx(((0.6 + 0.35) / 2, (0.65 + 0.55) / 2))
    assert choice.gain.mean == pytest.approx((0.05 + 0.2) / 2)
    assert choice.gain.error == pytest.approx(0.05 / 2)  # irony gains 0.2 on both seeds
    (row,) = pooled_tables.epoch_choice(results).frame().to_dict("records")
    assert (row["last %"], row["best on validation %"], row["gain"]) == ("47.5", "60.0", "+12.50")


def test_without_several_evaluations_no_epoch_is_chosen(build: Build) -> None:
    assert epoch_choices(build(epochs=1)) == []
    results = build()
    assert epoch_choices(Results(results.trials, pd.DataFrame(), results.weights, {})) == []
    unknown = results.epochs.assign(validation_accuracy=np.nan)
    assert epoch_choices(Results(results.trials, unknown, results.weights, {})) == []
    unfinished = results.trials.assign(status="failed")
    assert epoch_choices(Results(unfinished, results.epochs, results.weights, {})) == []


def test_trials_of_several_variants_count_in_each(build: Build) -> None:
    results = build(variants=("a",), methods=("ce",), sources=("generated",))
    frames = [pd.concat([frame, frame.assign(variant="b")]) for frame in (results.trials, results.epochs)]
    choices = epoch_choices(Results(frames[0], frames[1].reset_index(drop=True), results.weights, {}))
    assert [(choice.key.variant, choice.n) for choice in choices] == [("a", 3), ("b", 3)]
