"""The decision: which candidate, what gain, how sure."""

import numpy as np
import pytest
from scipy import stats

from harness.checkers.temperature import calibrated, fit_temperature
from harness.weigh.decision import CONFIDENCE, Predictions, choose, corrected_gain, finalists, log_loss, squared_errors


def test_the_variance_is_corrected_for_overlapping_training_rows():
    differences = [np.array([1.0, 1.0]), np.array([0.0, 0.0]), np.array([1.0, 1.0])]
    gain = corrected_gain(differences, test_share=0.25)
    assert gain.mean == pytest.approx(2 / 3)
    means = [1.0, 0.0, 1.0]
    assert gain.error == pytest.approx(np.sqrt((1 / 3 + 0.25) * np.var(means, ddof=1)))
    assert gain.df == 2
    half = stats.t.ppf(0.9, 2) * gain.error
    assert gain.interval == pytest.approx((2 / 3 - half, 2 / 3 + half))
    assert gain.sure == pytest.approx(stats.t.cdf(2 / 3 / gain.error, 2))


def test_rows_set_the_variance_where_folds_agree_by_chance():
    rows = np.array([1.0, -1.0, 0.0, 0.0])
    gain = corrected_gain([rows, rows, rows], 0.25)
    within = (3 * 2.0 + 2) / (12 - 3 + 2)  # squares within folds over degrees of freedom, with two pseudo-rows
    assert gain.error == pytest.approx(np.sqrt((1 / 3 + 0.25) * within / 4))
    assert gain.df == 9


def test_equal_predictions_decide_nothing_and_have_an_interval():
    gain = corrected_gain([np.zeros(5), np.zeros(5)], 0.25)
    assert (gain.mean, gain.sure, gain.verdict) == (0.0, 0.5, "cannot tell")
    low, high = gain.interval
    assert low < -0.1
    assert high > 0.1


@pytest.mark.parametrize(("shift", "verdict"), [(0.5, "use"), (-0.5, "do not use"), (0.01, "cannot tell")])
def test_the_verdict_needs_the_whole_interval(shift, verdict):
    rng = np.random.default_rng(0)
    assert corrected_gain([shift + 0.3 * rng.standard_normal(40) for _ in range(3)], 0.25).verdict == verdict


def test_one_fold_is_refused():
    with pytest.raises(ValueError, match="at least two folds, found 1"):
        corrected_gain([np.zeros(5)], 0.25)


def test_the_interval_covers_the_true_gain():
    """Rows and training sets vary, and training sets overlap, as in cross-validation: coverage is at least nominal."""
    rng = np.random.default_rng(1)
    folds, rows, draws = 3, 60, 1500
    overlap, noise = 0.6, 0.02  # correlation and spread of what training sets do to a fold's true gain
    covered = 0
    for _ in range(draws):
        common = rng.standard_normal()
        effects = noise * (np.sqrt(overlap) * common + np.sqrt(1 - overlap) * rng.standard_normal(folds))
        differences = [rng.choice([1.0, 0.0, -1.0], rows, p=[0.12, 0.8, 0.08]) + effect for effect in effects]
        low, high = corrected_gain(differences, 0.25).interval
        covered += low <= 0.04 <= high
    assert CONFIDENCE <= covered / draws <= 0.97


def predictions(*p_true):
    """Predictions of two classes: the probability of the true label of each row."""
    p = np.array(p_true)
    return Predictions(np.log(np.stack([p, 1 - p], axis=1)), np.zeros(len(p), dtype=np.int64))


def test_log_loss_does_not_depend_on_how_sure_a_model_is_of_itself():
    soft = predictions(0.6, 0.7, 0.45, 0.8)
    logits = soft.log_probs * 3  # the same order, sharper
    sharp = Predictions(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), soft.truth)
    assert log_loss([soft]) == pytest.approx(log_loss([sharp]))
    assert log_loss([soft]) < np.log(2)


def test_squared_errors_are_those_of_calibrated_probabilities():
    rows = predictions(0.6, 0.7, 0.45, 0.8)
    p = np.exp(calibrated(rows.log_probs, fit_temperature(rows.log_probs, rows.truth)))
    expected = [(p_true - 1) ** 2 + p_false**2 for p_true, p_false in p]
    assert squared_errors({0: [rows]})[0] == pytest.approx(expected)


def test_squared_errors_are_averaged_over_models_and_have_one_temperature():
    one, other = predictions(0.6, 0.3), predictions(0.8, 0.7)
    both = squared_errors({0: [one, other], 1: [predictions(0.55, 0.9, 0.4)]})
    assert [len(rows) for rows in both.values()] == [2, 3]
    apart = squared_errors({0: [predictions(0.6, 0.3, 0.8, 0.7)], 1: [predictions(0.55, 0.9, 0.4)]})
    assert both[0] == pytest.approx((apart[0][:2] + apart[0][2:]) / 2)
    assert both[1] == pytest.approx(apart[1])


def test_a_row_that_is_surely_wrong_costs_at_most_two():
    rows = predictions(*([0.999] * 999), 1e-9)
    worst = squared_errors({0: [rows]})[0][-1]
    assert 1.5 < worst <= 2


def test_finalists_have_the_smallest_log_loss():
    every = {"a": [predictions(0.4, 0.6)], "b": [predictions(0.9, 0.4)], "c": [predictions(0.8, 0.7)]}
    assert finalists(every) == ["c", "b"]


def test_a_fold_does_not_choose_what_it_judges():
    good, bad, fair = (predictions(*[p] * 4 + [0.45]) for p in (0.9, 0.3, 0.6))
    every = {"a": {0: [good], 1: [bad], 2: [fair]}, "b": {0: [bad], 1: [good], 2: [fair]}}
    assert (choose(every, without=0), choose(every, without=1)) == ("b", "a")
