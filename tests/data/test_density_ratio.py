"""Density ratios against known ones, and against scikit-learn's own cross-fitting."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from harness.data.density_ratio import FOLDS, log_density_ratio
from harness.errors import TrialError
from harness.seeds import derive


def samples(others, real, shift, seed=0):
    """Points on a sphere of 3 dimensions, of which real ones prefer the direction of the first axis."""
    rng = np.random.Generator(np.random.PCG64(seed))
    kept = rng.normal(0, 1, (4 * real + 1000, 3))
    kept /= np.linalg.norm(kept, axis=1, keepdims=True)
    density = np.exp(shift * kept[:, 0])
    kept = kept[rng.random(len(kept)) < density / np.exp(abs(shift))][:real]
    assert len(kept) == real
    points = rng.normal(0, 1, (others, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True), kept


def test_a_known_ratio_is_found():
    """Real density over uniform density is exp(k x) · k / sinh(k) on the sphere, which is logistic in x."""
    shift = 1.0
    points, real = samples(20_000, 10_000, shift)
    log_r, auc = log_density_ratio(points, real, 100.0, 0)
    expected = shift * points[:, 0] + np.log(shift / np.sinh(shift))
    np.testing.assert_allclose(log_r, expected, atol=0.15)
    assert np.exp(log_r).mean() == pytest.approx(1.0, abs=0.03), "the mean of a ratio over the source is 1"
    assert 0.65 < auc < 0.75


def test_the_sizes_of_the_two_sets_do_not_matter():
    points, real = samples(20_000, 10_000, 1.0)
    all_rows, few = (log_density_ratio(points, real[:m], 100.0, 0)[0] for m in (10_000, 1_000))
    np.testing.assert_allclose(all_rows, few, atol=0.4)


def test_texts_that_cannot_be_told_apart():
    points, real = samples(3_000, 1_000, 0.0)
    log_r, auc = log_density_ratio(points, real, 1.0, 0)
    assert auc == pytest.approx(0.5, abs=0.05)
    assert np.abs(log_r).max() < 0.5


def test_every_row_is_judged_by_a_classifier_that_has_not_seen_it():
    points, real = samples(60, 30, 2.0)
    x, y = np.concatenate([points * 3, real * 7]), np.arange(90) >= 60
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=derive(5, "density_ratio") % 2**32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    logits = cross_val_predict(LogisticRegression(C=2.0, max_iter=1000), unit, y, cv=folds, method="decision_function")
    log_r, _ = log_density_ratio(x[:60].astype(np.float32), x[60:].astype(np.float32), 2.0, 5)
    d = 1 / (1 + np.exp(-logits[:60]))
    np.testing.assert_allclose(np.exp(log_r), d / (1 - d) * 60 / 30, rtol=1e-4)
    again, other = (log_density_ratio(points, real, 2.0, seed)[0] for seed in (5, 6))
    assert np.array_equal(again, log_density_ratio(points, real, 2.0, 5)[0])
    assert not np.array_equal(again, other)


def test_fewer_texts_than_folds():
    points, real = samples(60, 4, 1.0)
    with pytest.raises(TrialError) as caught:
        log_density_ratio(points, real, 1.0, 0)
    assert str(caught.value) == "expected at least 5 texts of each kind, found 4 real ones and 60 others"
