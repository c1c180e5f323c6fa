from __future__ import annotations

import numpy as np
import pandas as pd

from harness.reports.findings import read
from harness.reports.results import Results

from .conftest import Build, edit


def sentences(results: Results) -> str:
    (reading,) = read(results)
    return " ".join(reading.sentences)


def set_accuracy(results: Results, **means: float) -> Results:
    """Give methods of the generated source a mean; seeds differ by a little, unlike for each method."""
    trials = results.trials
    for i, (method, mean) in enumerate(means.items()):
        mask = (trials["method"] == method) & (trials["source"] == "generated")
        trials.loc[mask, "test_accuracy"] = mean + np.sin(trials.loc[mask, "seed"] + i) / 1000
    return results


def test_a_clear_gain_is_told_with_its_interval_cost_and_controls(build: Build) -> None:
    results = build(methods=("ce", "dimp", "prior"), seeds=range(5), sources=("real_small", "generated", "both"))
    told = sentences(set_accuracy(results, ce=0.7, dimp=0.8, prior=0.75))
    assert "Best mean test accuracy on generated rows: dimp, 80.0 ± 0.1 % (n = 5)." in told
    assert "better on 5 of 5 seeds" in told
    assert "best of 3" in told
    assert "that of CE with its checkers charged" in told
    assert "worse than it: prior (label shares alone) (−5" in told
    assert "not run, or without a result: imp_quality" in told
    assert "includes zero" not in told


def test_an_interval_with_zero_is_said(build: Build) -> None:
    told = sentences(set_accuracy(build(methods=("ce", "dimp"), seeds=range(5)), ce=0.7, dimp=0.7004))
    assert "The interval includes zero" in told


def test_one_seed_is_an_anecdote(build: Build) -> None:
    told = sentences(build(seeds=(0,)))
    assert "from one seed: too little to give an interval" in told
    assert "± –" in told


def test_few_seeds_are_said(build: Build) -> None:
    assert "With 3 seeds, only a true gain of about" in sentences(build(methods=("ce", "dimp")))


def test_ce_can_be_the_best(build: Build) -> None:
    assert "no weighting beat it" in sentences(set_accuracy(build(), ce=0.9, imp=0.8, dimp=0.8))


def test_a_better_control_is_called_better(build: Build) -> None:
    results = build(methods=("ce", "dimp"), seeds=range(5))
    small = results.trials["source"] == "real_small"
    results.trials.loc[small, "test_accuracy"] = 0.95 + np.cos(results.trials.loc[small, "seed"]) / 1000
    assert "better than it: CE on the small real set alone (+" in sentences(results)


def test_a_control_can_be_the_best(build: Build) -> None:
    told = sentences(set_accuracy(build(methods=("ce", "dimp", "prior")), ce=0.7, dimp=0.8, prior=0.9))
    assert "themselves the best: prior" in told


def test_an_incomplete_cell_is_not_the_best_while_others_are_complete(build: Build) -> None:
    results = set_accuracy(build(), ce=0.7, imp=0.8, dimp=0.9)
    results = edit(results, (results.trials["method"] == "dimp") & (results.trials["seed"] == 0), status="failed")
    told = sentences(results)
    assert "generated rows: imp" in told
    assert "1 of 12 trials have no result" in told


def test_without_ce_or_results_that_is_said(build: Build) -> None:
    assert "nothing to compare with" in sentences(build(methods=("dimp",), sources=("generated",)))
    results = build()
    nothing = edit(results, pd.Series(True, index=results.trials.index), status="missing")
    assert "nothing can be said yet" in sentences(nothing)
    assert read(Results(results.trials.iloc[:0], results.epochs, results.weights, results.meta)) == []


def test_without_generated_rows_the_noisy_ones_are_spoken_of(build: Build) -> None:
    results = build(methods=("ce", "dimp"))
    sources = {"source": {"generated": "noisy"}}
    frames = (frame.replace(sources) for frame in (results.trials, results.epochs, results.weights))
    told = sentences(Results(*frames, results.meta))
    assert "Best mean test accuracy on corrupted rows: dimp" in told
    assert "real and generated rows together" not in told
    assert "prior (label shares alone)" in told


def test_with_several_fractions_the_largest_speaks(build: Build) -> None:
    assert "with 100 % of the real rows" in sentences(build(methods=("ce", "dimp"), fractions=(0.1, 1.0)))
