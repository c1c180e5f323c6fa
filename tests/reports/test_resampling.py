from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.metrics import label_accuracy, label_macro_f1
from harness.reports import resampling
from harness.reports.resampling import ResampledScores, TestPredictions, row_counts, weighted_scores


def random_predictions(rows: int, classes: int, trials: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(classes, size=rows).astype(np.int8), rng.integers(-1, classes, (trials, rows)).astype(np.int8)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 30), st.integers(2, 4), st.integers(0, 1000))
def test_weighted_scores_are_those_of_the_repeated_rows(rows: int, classes: int, seed: int) -> None:
    truth, predicted = random_predictions(rows, classes, 2, seed)
    counts = np.concatenate(list(row_counts(rows, 3, np.random.default_rng(seed))))
    scores = weighted_scores(predicted, truth, classes, counts)
    for draw, count in enumerate(counts.astype(int)):
        for trial in range(2):
            repeated, labels = np.repeat(predicted[trial], count), np.repeat(truth, count)
            assert scores["test_accuracy"][trial, draw] == pytest.approx(label_accuracy(repeated, labels), abs=1e-6)
            f1 = label_macro_f1(repeated, labels, classes)  # scikit-learn's
            assert scores["test_f1"][trial, draw] == pytest.approx(f1, abs=1e-6)


def test_counts_of_rows_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(row_counts(7, 10, np.random.default_rng(0))))
    assert whole.shape == (10, 7)
    assert (whole.sum(axis=1) == 7).all()
    monkeypatch.setattr(resampling, "BLOCK", 21)
    blocks = list(row_counts(7, 10, np.random.default_rng(0)))
    assert [len(block) for block in blocks] == [3, 3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_trials_share_their_resamples_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, predicted = random_predictions(40, 3, 4, 0)
    predicted[3] = predicted[0]
    predictions = {"b": TestPredictions(truth, 3, {f"t{i}": row for i, row in enumerate(predicted)})}
    scores = ResampledScores(predictions).of("b", ["t3", "t0", "t1"], "test_f1")
    assert scores is not None
    assert scores.shape == (3, resampling.DRAWS)
    np.testing.assert_array_equal(scores[0], scores[1])
    monkeypatch.setattr(resampling, "BLOCK", 500)
    again = ResampledScores(predictions).of("b", ["t3", "t0", "t1"], "test_f1")
    np.testing.assert_array_equal(scores, again)


def test_scores_without_predictions_are_unknown() -> None:
    truth, predicted = random_predictions(5, 2, 1, 0)
    resampled = ResampledScores({"b": TestPredictions(truth, 2, {"t": predicted[0]})})
    assert resampled.of("b", ["t", "other"], "test_f1") is None
    assert resampled.of("c", ["t"], "test_f1") is None
    assert resampled.of("b", ["t"], "test_loss") is None
    assert ResampledScores({}).of("b", [], "test_f1") is None


def test_the_standard_error_of_accuracy_is_the_binomial_one() -> None:
    truth = np.zeros(400, np.int8)
    predicted = (np.arange(400) < 80).astype(np.int8)  # accuracy 0.8
    scores = ResampledScores({"b": TestPredictions(truth, 2, {"t": predicted})}).of("b", ["t"], "test_accuracy")
    assert scores is not None
    assert scores.std() == pytest.approx(np.sqrt(0.8 * 0.2 / 400), rel=0.1)
