"""Temperatures against a known one, a reference optimizer, and the bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from harness.checkers.temperature import BOUNDS, calibrated, fit_temperature
from harness.errors import TrialError


def draw(rows, classes, temperature, seed=0):
    """Log-probabilities that are off by a temperature, and labels."""
    rng = np.random.Generator(np.random.PCG64(seed))
    logits = rng.normal(0, 2, (rows, classes))
    truth = calibrated(logits, temperature)
    labels = (rng.random(rows)[:, None] > np.exp(truth).cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return calibrated(logits, 1.0).astype(np.float32), labels


def loss(log_probs, labels, temperature):
    z = torch.from_numpy(log_probs.astype(np.float64)) / temperature
    return torch.nn.functional.cross_entropy(z, torch.from_numpy(labels)).item()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    assert fit_temperature(*draw(100_000, 3, temperature)) == pytest.approx(temperature, rel=0.03)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 5), temperature=st.floats(0.3, 4.0))
def test_no_other_temperature_has_a_lower_loss(seed, classes, temperature):
    log_probs, labels = draw(60, classes, temperature, seed)
    fitted = fit_temperature(log_probs, labels)
    reference = minimize_scalar(lambda t: loss(log_probs, labels, t), bounds=BOUNDS, method="bounded").x
    assert loss(log_probs, labels, fitted) <= loss(log_probs, labels, reference) + 1e-12


def test_one_row_of_two_by_hand():
    """With z = (0, -1) and 3 of 4 labels 0, softmax(z / T) = (3/4, 1/4) where 1 / T = ln 3."""
    log_probs = calibrated(np.array([[0.0, -1.0]] * 4), 1.0)
    assert fit_temperature(log_probs, np.array([0, 0, 1, 0])) == pytest.approx(1 / np.log(3), rel=1e-9)
    np.testing.assert_allclose(np.exp(calibrated(log_probs, 1 / np.log(3))), [[0.75, 0.25]] * 4)


def test_bounds():
    log_probs = np.log([[0.6, 0.4]] * 3)
    assert fit_temperature(log_probs, np.array([0, 0, 0])) == BOUNDS[0], "every row is right"
    assert fit_temperature(log_probs, np.array([1, 1, 1])) == BOUNDS[1], "every row is wrong"
    assert fit_temperature(np.log([[0.5, 0.5]] * 2), np.array([0, 1])) == BOUNDS[1], "any temperature would do"


def test_calibration_keeps_the_order_and_is_the_identity_at_1():
    log_probs, _ = draw(50, 4, 1.0)
    for temperature in (0.05, 3.0):
        values = calibrated(log_probs, temperature)
        assert np.array_equal(values.argsort(axis=1), log_probs.argsort(axis=1))
        np.testing.assert_allclose(np.exp(values).sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(calibrated(log_probs, 1.0), log_probs, atol=1e-6)
    logits = log_probs + np.arange(50)[:, None]
    np.testing.assert_allclose(calibrated(logits, 2.0), calibrated(log_probs, 2.0), atol=1e-12)


def test_a_log_probability_that_is_not_finite():
    with pytest.raises(TrialError, match="no temperature can be fitted"):
        fit_temperature(np.array([[0.0, -np.inf]]), np.array([0]))
