"""The table of metrics, by hand."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from harness import metrics


def test_metrics_worked_by_hand() -> None:
    log_probs = np.log(np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]))
    labels = np.array([0, 1, 1, 0])
    assert metrics.accuracy(log_probs, labels) == 0.75
    # F1 0.8 for class 0, 2/3 for class 1, 0 for class 2, which neither occurs nor is predicted
    assert metrics.macro_f1(log_probs, labels) == pytest.approx((0.8 + 2 / 3 + 0) / 3)
    assert metrics.loss(log_probs, labels) == pytest.approx((3 * math.log(2) + math.log(4)) / 4)


def test_a_predicted_index_outside_the_classes_is_wrong() -> None:
    predicted, labels = np.array([0, -1, 1, 1]), np.array([0, 0, 1, 1])
    assert metrics.label_accuracy(predicted, labels) == 0.75
    assert metrics.label_macro_f1(predicted, labels, 2) == pytest.approx((2 / 3 + 1) / 2)


def test_the_table_is_keyed_by_key_and_knows_the_better_direction() -> None:
    assert all(key == metric.key for key, metric in metrics.METRICS.items())
    assert metrics.ACCURACY.higher_is_better
    assert metrics.MACRO_F1.higher_is_better
    assert not metrics.LOSS.higher_is_better
    assert metrics.MACRO_F1.column("validation") == "validation_f1"


def test_titles_cost_no_start_up_time() -> None:
    code = "import sys, harness.metrics; print([m for m in ('numpy', 'sklearn') if m in sys.modules])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
