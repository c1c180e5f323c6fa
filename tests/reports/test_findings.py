from __future__ import annotations

import numpy as np
import pandas as pd

from harness.reports.findings import findings
from harness.reports.results import Results

from .conftest import Build, edit, predict


def sentences(results: Results) -> str:
    (finding,) = findings(results)
    return " ".join(finding.sentences)


def set_accuracy(results: Results, **means: float) -> Results:
    """Give methods of the generated source a mean; seeds differ by a little, unlike for each method."""
    trials = results.trials
    for i, (method, mean) in enumerate(means.items()):
        mask = (trials["method"] == method) & (trials["source"] == "generated")
        trials.loc[mask, "test_accuracy"] = mean + np.sin(trials.loc[mask, "seed"] + i) / 1000
    return results


def test_a_clear_gain_is_stated_with_its_interval_cost_and_controls(build: Build) -> None:
    results = build(methods=("ce", "dimp", "prior"), seeds=range(5), sources=("real_small", "generated", "both"))
    text = sentences(set_accuracy(results, ce=0.7, dimp=0.8, prior=0.75))
    assert "Best mean test accuracy on generated rows: dimp, 80.0 ± 0.1 % (n = 5)." in text
    assert "better on 5 of 5 seeds" in text
    assert "best of 3" in text
    assert "that of CE if all its checkers are charged" in text
    assert "worse than it: prior (label shares alone) (−5" in text
    assert "not run, or without a result: imp_quality" in text
    assert "includes zero" not in text


def test_an_interval_that_includes_zero_is_stated(build: Build) -> None:
    text = sentences(set_accuracy(build(methods=("ce", "dimp"), seeds=range(5)), ce=0.7, dimp=0.7004))
    assert "The interval includes zero" in text


def test_one_seed_gives_no_interval(build: Build) -> None:
    text = sentences(build(seeds=(0,)))
    assert "from one seed: too few for an interval" in text
    assert "± –" in text


def test_the_detectable_gain_of_few_seeds_is_stated(build: Build) -> None:
    assert "With 3 seeds, only a true gain of about" in sentences(build(methods=("ce", "dimp")))


def test_ce_can_be_the_best(build: Build) -> None:
    assert "no other method has a higher mean" in sentences(set_accuracy(build(), ce=0.9, imp=0.8, dimp=0.8))


def test_a_better_control_is_stated(build: Build) -> None:
    results = build(methods=("ce", "dimp"), seeds=range(5))
    small = results.trials["source"] == "real_small"
    results.trials.loc[small, "test_accuracy"] = 0.95 + np.cos(results.trials.loc[small, "seed"]) / 1000
    assert "better than it: CE on the small real set alone (+" in sentences(results)


def test_a_control_can_be_the_best(build: Build) -> None:
    text = sentences(set_accuracy(build(methods=("ce", "dimp", "prior")), ce=0.7, dimp=0.8, prior=0.9))
    assert "the best method itself: prior" in text


def test_an_incomplete_cell_is_not_the_best_while_others_are_complete(build: Build) -> None:
    results = set_accuracy(build(), ce=0.7, imp=0.8, dimp=0.9)
    results = edit(results, (results.trials["method"] == "dimp") & (results.trials["seed"] == 0), status="failed")
    text = sentences(results)
    assert "generated rows: imp" in text
    assert "1 of 12 trials have no result" in text


def test_a_method_with_fewer_seeds_is_not_the_best(build: Build) -> None:
    results = set_accuracy(build(methods=("ce", "dimp", "prior"), seeds=range(3)), ce=0.7, dimp=0.8, prior=0.9)
    few = (results.trials["method"] == "prior") & (results.trials["seed"] > 0)
    results = Results(results.trials[~few], results.epochs, results.weights, results.meta)
    assert "on generated rows among methods with as many seeds: dimp, 80.1" in sentences(results)


def test_missing_ce_and_missing_results_are_stated(build: Build) -> None:
    assert "has no result to compare with" in sentences(build(methods=("dimp",), sources=("generated",)))
    results = build()
    nothing = edit(results, pd.Series(True, index=results.trials.index), status="missing")
    assert "has a result yet" in sentences(nothing)
    assert findings(Results(results.trials.iloc[:0], results.epochs, results.weights, results.meta)) == []


def test_without_generated_rows_findings_are_about_corrupted_ones(build: Build) -> None:
    results = build(methods=("ce", "dimp"))
    sources = {"source": {"generated": "noisy"}}
    frames = (frame.replace(sources) for frame in (results.trials, results.epochs, results.weights))
    text = sentences(Results(*frames, results.meta))
    assert "Best mean test accuracy on corrupted rows: dimp" in text
    assert "real and generated rows together" not in text
    assert "prior (label shares alone)" in text


def test_of_several_fractions_the_largest_is_reported(build: Build) -> None:
    assert "with 100 % of the real rows" in sentences(build(methods=("ce", "dimp"), fractions=(0.1, 1.0)))


def test_findings_begin_with_all_benchmarks(build: Build) -> None:
    results = set_accuracy(build(benchmarks=("news", "irony"), methods=("ce", "dimp", "prior")), ce=0.7, dimp=0.8)
    first, *others = findings(results)
    assert first.subject == "All benchmarks"
    assert [finding.subject for finding in others] == ["news", "irony"]
    (sentence,) = first.sentences
    assert "On generated rows, over 2 benchmarks, the best mean gain over CE is that of dimp: +10" in sentence
    assert "over seeds alone" in sentence
    assert "permutation p = 0.062 after correction" in sentence  # 2 / 2**6, twice
    assert "better than CE with probability 1.00; average rank 1.00 of 3" in sentence
    assert "includes zero" not in sentence


def test_a_pooled_interval_that_includes_zero_is_stated(build: Build) -> None:
    results = build(benchmarks=("news", "irony"), methods=("ce", "dimp"))
    trials = results.trials
    trials["test_accuracy"] = 0.7 + np.where(trials["method"] == "dimp", np.sin(trials["seed"] * 2) / 100, 0.0)
    (sentence,) = findings(results)[0].sentences
    assert "The interval includes zero; only a true gain of about" in sentence


def test_one_seed_gives_no_pooled_interval(build: Build) -> None:
    first = findings(build(benchmarks=("news", "irony"), methods=("ce", "dimp"), seeds=(0,)))[0]
    assert "from too few seeds for an interval" in first.sentences[0]


def test_with_predictions_the_interval_covers_the_test_rows(build: Build) -> None:
    results = predict(build(methods=("ce", "dimp", "prior"), seeds=range(5)))
    assert "95 % interval over seeds and test rows +" in sentences(results)
    assert "95 % interval over seeds alone +" in sentences(build(methods=("ce", "dimp", "prior"), seeds=range(5)))


def test_equal_gains_on_all_seeds_have_no_p(build: Build) -> None:
    results = predict(build(methods=("ce", "dimp"), sources=("generated",)))
    dimp, ce = (results.trials["method"] == name for name in ("dimp", "ce"))
    ce &= results.trials["source"] == "generated"
    results.trials.loc[dimp, "test_accuracy"] = results.trials.loc[ce, "test_accuracy"].to_numpy() + 0.05
    text = sentences(results)
    assert "95 % interval over seeds and test rows" in text
    assert "better on 3 of 3 seeds)." in text
    assert "detected with 80 % power" not in text
