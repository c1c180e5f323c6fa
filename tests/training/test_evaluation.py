from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss

from harness.metrics import METRICS
from harness.training.activations import model_inputs
from harness.training.classifier import forward, load_classifier
from harness.training.evaluation import metrics, predict
from tests.training.small import HERE


def test_metrics_by_hand():
    p = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.25, 0.5, 0.25]], np.float32)
    values = metrics(np.log(p), np.array([0, 1, 1, 0]), "test")
    assert values.keys() == {f"test_{key}" for key in METRICS}
    assert values["test_accuracy"] == 0.5
    # class 0: one of two predictions right, one of two rows predicted: F1 1/2; class 1 the same; class 2 never: 0
    assert values["test_f1"] == pytest.approx(1 / 3)
    loss = -(math.log(0.7) + math.log(0.3) + math.log(0.8) + math.log(0.25)) / 4
    assert values["test_loss"] == pytest.approx(loss, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 5), st.integers(1, 40))
def test_metrics_against_scikit_learn(seed, classes, rows):
    rng = np.random.Generator(np.random.PCG64(seed))
    p, labels = rng.dirichlet(np.ones(classes), rows), rng.integers(0, classes, rows)
    values = metrics(np.log(p).astype(np.float32), labels, "x")
    predicted, every = p.argmax(1), list(range(classes))
    assert values["x_accuracy"] == accuracy_score(labels, predicted)
    expected = f1_score(labels, predicted, labels=every, average="macro", zero_division=0)
    assert values["x_f1"] == pytest.approx(expected)
    assert values["x_loss"] == pytest.approx(log_loss(labels, p, labels=every), rel=1e-5)


def test_predictions_are_in_the_order_of_the_rows(tokens, tiny_encoder):
    torch.set_num_threads(1)
    model = load_classifier(str(tiny_encoder), 3, 0, "sdpa").train()
    log_probs = predict(model, tokens, 3, 7, "float32", HERE)
    assert log_probs.shape == (len(tokens.lengths), 3)
    assert log_probs.dtype == np.float32
    np.testing.assert_allclose(np.exp(log_probs.astype(np.float64)).sum(1), 1.0, rtol=1e-5)
    assert model.training, "the mode is given back"
    model.eval()
    with torch.no_grad():
        for row in (0, 5, len(log_probs) - 1):
            logits = forward(model, model_inputs(model, tokens, np.array([row]), HERE.device), "float32")
            np.testing.assert_allclose(log_probs[row], logits.log_softmax(-1)[0].numpy(), atol=1e-5)


def test_predictions_leave_dropout_out(tokens, tiny_encoder):
    model = load_classifier(str(tiny_encoder), 3, 0, "sdpa").train()
    model.dropout.p = 0.9
    first, second = (predict(model, tokens, 3, 16, "float32", HERE) for _ in range(2))
    assert np.array_equal(first, second)
